"""A small LSTM language model on WikiText-2 under SEFL, 4 clients, in dense form.

The vocabulary is cut to the 2,000 most frequent words, all others being one: perplexities compare with each other, not
with published ones. SEFL (arXiv 2201.11934), abstract: up to 13.7 times faster by block-Hankel pruning.

Command: python scripts/federate.py configs/sefl/wikitext2.py
Time: `python scripts/tables.py` (federated).
Score: likewise.
"""

from modicum.models import LSTMLanguageModel
from modicum.systems.federation_config import FederatedConfig
from modicum.train import DataConfig, OptimizerConfig


def config() -> FederatedConfig:
    """The run."""
    return FederatedConfig(
        data=DataConfig(name="wikitext-2", test="valid"),
        model=LSTMLanguageModel(words=2000, features=256),
        optimizer=OptimizerConfig(name="adam", learning_rate=3e-3, clip=1.0),
        clients=4,
        rounds=12,
        local_steps=25,
        batch=16,
        window=32,
        path="sefl",
        evaluate_every=4,
    )
