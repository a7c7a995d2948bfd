from __future__ import annotations

from dataclasses import replace

import pytest

from evals.datasets import load_dataset
from evals.index import content_hash, open_judged, open_served, scratch_settings, untuned_fusion, untuned_weights
from rag.bootstrap import create_collection
from rag.configuration import load_settings
from rag.errors import UsageError
from rag.retrieval.fusion import DEFAULT_WEIGHTS
from rag.settings import Settings
from tests.fake_store import HashEmbedder


def of_tenant(settings: Settings, tenant: str) -> Settings:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"tenant": tenant})})


async def test_each_tenant_has_a_scratch_collection_of_its_own(in_zoo, zoo):
    settings, dataset = load_settings(), load_dataset(zoo)
    content = content_hash(dataset, None)
    names = {
        scratch_settings(of_tenant(settings, tenant), HashEmbedder(), content).store.collection
        for tenant in ("default", "other")
    }
    assert len(names) == 2
    for tenant in ("default", "other"):
        async with open_judged(of_tenant(settings, tenant), dataset, corpus=None) as judged:
            assert judged.passages == 12


async def test_a_collection_without_a_passage_of_the_tenant_is_refused(in_zoo, zoo):
    settings, dataset = of_tenant(load_settings(), "nobody"), load_dataset(zoo)
    collection = await create_collection(settings, HashEmbedder(), [], live=True)
    await collection.store.close()
    with pytest.raises(UsageError, match="holds no passage of the tenant 'nobody'"):
        async with open_served(settings, dataset):
            pass
    blank = replace(dataset, documents=tuple(replace(document, title="", text="") for document in dataset.documents))
    with pytest.raises(UsageError, match="holds no passage of the tenant 'nobody'"):
        async with open_judged(settings, blank, corpus=None):
            pass


def test_each_method_has_its_own_default_weight_and_a_configured_one_counts_for_all(in_zoo, monkeypatch):
    assert untuned_weights(load_settings()).dense == DEFAULT_WEIGHTS
    monkeypatch.setenv("RAG_RETRIEVAL__FUSION", "rrf")
    assert untuned_fusion(load_settings()).weight_dense == DEFAULT_WEIGHTS["rrf"]
    monkeypatch.setenv("RAG_RETRIEVAL__WEIGHT_DENSE", "0.3")
    assert set(untuned_weights(load_settings()).dense.values()) == {0.3}
