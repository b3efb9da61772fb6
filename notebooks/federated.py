# %% [markdown]
# # Learning from data that nobody may see
#
# In Colab: upload this notebook, put a checkout of Modicum into `/content/modicum`, and run; the first cell installs it
# with OpenSSL's ciphers. Elsewhere `pip install -e '.[federated]'` brings these, and the cell does nothing.
#
# Four clients hold handwritten digits and show them to nobody. They train one network together, three ways:
#
# 1. **plain**: each sends how far it moved the weights; whoever runs the server can look at that;
# 2. **SEFL**: two servers that do not collude add the updates up, and neither sees one;
# 3. **enclave**: updates are sealed for a program whose code the clients have checked.
#
# **None of this is audited.** It is research code, and all parties run in this one process: it shows what the protocols
# compute and cost, and protects nobody.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("modicum") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "/content/modicum[federated]"], check=True)

# %%
import secrets

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from modicum import train
from modicum.federated import (
    FixedPointSpec,
    RefusedError,
    SeflSpec,
    attestation,
    ciphers,
    decode_exact,
    enclave,
    encode,
    refuse_own_supports,
    sefl,
)
from modicum.models import SmallConvNet
from modicum.systems import federation
from modicum.systems.federation_config import FederatedConfig

# %% [markdown]
# ## A sum that nobody can look into
#
# Floats become whole numbers in a ring first: sums are then exact, and a mask of uniform numbers hides a vector
# perfectly. The budget is checked when the specification is made: so many clients at the clip stay below half of the
# ring.

# %%
clients, dimension = 4, 6
identities = [secrets.token_bytes(32) for _ in range(clients)]
provider_secret = secrets.token_bytes(32)
spec = SeflSpec(
    round_id=0,
    dimension=dimension,
    identities=tuple(ciphers.verify_key(key) for key in identities),
    provider_key=ciphers.public_key(provider_secret),
    fixed_point=FixedPointSpec(clients=clients, clip=4.0, fraction_bits=20),
    least=2,
)
values = jax.random.normal(jax.random.key(0), (clients, dimension))
ring = np.asarray(encode(spec.fixed_point, values).ring)

# %% [markdown]
# A client speaks once. Its vector goes out under a mask, and the seed of the mask goes sealed to the provider.

# %%
submissions = []
for at in range(3):  # the fourth client has dropped
    client = sefl.client_init(spec, at, identities[at], ring[at])
    _, outbox = sefl.client_step(spec, client, (), secrets.token_bytes(32))
    submissions.append(outbox["aggregator"])
print("the first client's vector:", np.round(np.asarray(values[0], np.float64), 3))
print("what the aggregator gets: ", np.frombuffer(submissions[0].masked, "<u4"))

# %% [markdown]
# The aggregator adds up what it has, and asks the provider for the sum of the masks of just these clients.

# %%
aggregator, _ = sefl.aggregator_step(spec, sefl.AggregatorState(), submissions)
aggregator, outbox = sefl.aggregator_step(spec, aggregator, ())  # no message: the collection ends
request = outbox["provider"]
provider, outbox = sefl.provider_step(spec, sefl.ProviderState(provider_secret), [request])
aggregator, _ = sefl.aggregator_step(spec, aggregator, [outbox["aggregator"]])
total = decode_exact(spec.fixed_point, aggregator.total)
print("sum of three:", np.round(total, 5))
print("largest difference from floats:", np.abs(total - np.asarray(values[:3]).sum(0)).max())

# %% [markdown]
# A second set of survivors would give the difference of two sums, and with it one client's vector: refused. So is a set
# of one, a replay into another round, an altered seed, a client that was made up.

# %%
for seeds in (dict(list(request.seeds.items())[:2]), dict(list(request.seeds.items())[:1])):
    try:
        sefl.provider_step(spec, provider, [type(request)(0, seeds)])
    except RefusedError as refused:
        print("refused:", refused)

# %% [markdown]
# Masks need one support for all. If each client sends the entries that it likes, the sum lays bare what one client
# alone sends:

# %%
try:
    refuse_own_supports(np.array([[1, 1, 0, 0], [1, 0, 1, 0]], bool))
except RefusedError as refused:
    print("refused:", refused)

# %% [markdown]
# ## An enclave must show what it is
#
# A client seals nothing before the enclave's evidence satisfies its policy. The enclave here is simulated: whoever runs
# the machine can look inside, so it must be let in by name.

# %%
session = enclave.EnclaveSpec(dimension=dimension, identities=spec.identities, least=2, clip_norm=10.0)
inside = enclave.enclave_init(session, secrets.token_bytes(32))
nonce = secrets.token_bytes(16)
data = enclave.report_data(session, inside.public_key, nonce)
evidence = attestation.Evidence(
    "simulated", inside.public_key, attestation.simulated_quote(secrets.token_bytes(32), data)
)
known = (attestation.simulated_measurement(),)
try:
    attestation.verify(evidence, attestation.Policy(measurements=known), session, nonce, 0.0)
except RefusedError as refused:
    print("refused:", refused)
policy = attestation.Policy(measurements=known, accept_simulated=True)
key = attestation.verify(evidence, policy, session, nonce, 0.0).public_key

# %% [markdown]
# Inside, each update is seen by itself: it may be sparse, and one that is boosted is refused.

# %%
sparse = np.where(np.abs(np.asarray(values)) > 0.7, np.asarray(values), 0).astype(np.float32)
for at in range(3):
    sealed = enclave.client_seal(session, 0, at, identities[at], key, sparse[at], secrets.token_bytes(32))
    inside, _ = enclave.enclave_step(session, inside, [sealed])
_, outbox = enclave.enclave_step(session, inside, ())
print("sum of three:", np.round(outbox["server"].total, 5))

# %% [markdown]
# ## Training
#
# The same steps add up the clients' moves in each round of federated averaging. Private training gives what plain
# training gives, up to the step of the fixed point.

# %%
base = FederatedConfig(
    data=train.DataConfig(name="digits"),
    model=SmallConvNet(widths=(8, 16)),
    optimizer=train.OptimizerConfig(name="sgd", learning_rate=0.05),
    clients=4,
    rounds=6,
    local_steps=10,
    path="plain",
    evaluate_every=1,
)
arms = {
    "plain": {"path": "plain"},
    "SEFL": {"path": "sefl"},
    "enclave, a tenth of the entries": {"path": "enclave", "fraction": 0.1},
}
results = {}
for name, more in arms.items():
    config = train.parse_overrides(base, [f"{key}={value}" for key, value in more.items()])
    results[name] = federation.federate(config)
    summary = results[name].summary
    print(
        f"{name}: {100 * summary['test_accuracy']:.1f}% of {summary['test_examples']} right, "
        f"{summary['upload_bytes'] / 1e6:.2f} MB sent"
    )

# %%
plain, private = (jax.flatten_util.ravel_pytree(results[name].state.params)[0] for name in ("plain", "SEFL"))
print("largest difference of a weight, SEFL against plain:", float(jnp.abs(plain - private).max()))

# %%
names = list(results)
figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
axes[0].barh(names, [100 * results[name].summary["test_accuracy"] for name in names])
axes[0].set(xlabel="held out, % right", xlim=(50, 100))
axes[1].barh(names, [results[name].summary["upload_bytes"] / 1e6 for name in names], color="tab:orange")
axes[1].set(xlabel="megabytes sent by all clients", yticks=[])
plt.show()

# %% [markdown]
# ## Further
#
# - `scripts/federate.py configs/sefl/digits.py --engine flower` puts clients, provider and aggregator into processes of
#   their own, over TLS.
# - `sefl_lattice` is the form with homomorphic encryption, `sefl_norm` leaves boosted vectors out under masks,
#   `noise` adds differential privacy from both servers.
