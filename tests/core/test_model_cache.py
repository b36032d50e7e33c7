from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_models import save_model

import mpqdm_core.model_cache as model_cache
from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.loading import load_denoiser
from mpqdm_core.model_cache import ModelCache


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [save_model(root / f"m{seed}", "ddim", seed) for seed in range(3)]


@pytest.fixture
def loads(monkeypatch):
    """Every load, in order."""
    heard = []

    def counted(source, **rest):
        heard.append(str(source))
        return load_denoiser(source, **rest)

    monkeypatch.setattr(model_cache, "load_denoiser", counted)
    return heard


def test_a_model_is_loaded_once(folders, loads):
    cache = ModelCache()
    first = cache.get(folders[0])
    assert cache.get(str(folders[0])) is first and len(loads) == 1
    assert cache.nbytes == sum(p.nbytes for p in first.network.parameters())


def test_many_at_the_same_moment_load_it_once_and_others_get_their_own(folders, loads):
    cache = ModelCache()
    barrier = threading.Barrier(6)

    def ask(folder):
        barrier.wait(timeout=30)
        return cache.get(folder)

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(ask, [folders[0], folders[1]] * 3))
    assert sorted(loads) == sorted(map(str, folders[:2]))
    assert len({id(denoiser) for denoiser in got}) == 2
    expected = [load_denoiser(folder).content_hash for folder in folders[:2]]
    assert [denoiser.content_hash for denoiser in got] == expected * 3


def test_the_least_recently_used_is_forgotten(folders, loads):
    one = ModelCache()
    one.get(folders[0])
    cache = ModelCache(max_bytes=2 * one.nbytes)
    for index in (0, 1, 0, 2):  # 1 is the least recently used when 2 comes
        cache.get(folders[index])
    assert cache.nbytes == 2 * one.nbytes
    loads.clear()
    cache.get(folders[0])
    cache.get(folders[2])
    assert loads == []
    cache.get(folders[1])
    assert loads == [str(folders[1])]


def test_a_model_larger_than_the_cache_is_kept_until_the_next(folders, loads):
    cache = ModelCache(max_bytes=1)
    assert cache.get(folders[0]) is cache.get(folders[0])
    cache.get(folders[1])
    cache.get(folders[0])
    assert loads == [str(folders[index]) for index in (0, 1, 0)]


def test_a_folder_that_changed_is_loaded_again(folders, loads, tmp_path):
    folder = shutil.copytree(folders[0], tmp_path / "m")
    cache = ModelCache()
    before = cache.get(folder)
    shutil.rmtree(folder)
    shutil.copytree(folders[1], folder)
    assert cache.get(folder).content_hash != before.content_hash and len(loads) == 2


def test_a_failed_load_is_told_to_all_and_tried_again(folders, monkeypatch):
    cache = ModelCache()
    release = threading.Event()

    def failing(source, **_rest):
        release.wait(timeout=30)
        raise LoadError(f"{source} is broken")

    monkeypatch.setattr(model_cache, "load_denoiser", failing)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(cache.get, folders[0]) for _ in range(2)]
        release.set()
        for future in asked:
            with pytest.raises(LoadError, match="is broken"):
                future.result(timeout=30)
    assert cache.nbytes == 0
    monkeypatch.setattr(model_cache, "load_denoiser", load_denoiser)
    assert cache.get(folders[0]).family == "ddpm"


def test_a_cache_without_room_is_refused():
    with pytest.raises(SettingsError, match="at least 1, got 0"):
        ModelCache(max_bytes=0)


def test_a_model_that_is_let_go_of_is_told_and_loaded_again(folders, loads):
    heard = []
    cache = ModelCache(on_forget=heard.append)
    kept = cache.get(folders[0])
    assert cache.holds(folders[0]) and cache.models() == (kept,)
    assert cache.forget(kept) and not cache.forget(kept)
    assert heard == [kept] and cache.models() == () and not cache.holds(folders[0])
    cache.get(folders[0])
    assert len(loads) == 2


def test_others_make_room_before_a_model_is_refused_for_memory(folders, loads, monkeypatch):
    cache = ModelCache()
    first = cache.get(folders[0])
    free = [10, 10**12]  # bytes, before and after another model went
    monkeypatch.setattr("mpqdm_core.memory.available_memory", lambda: free[0])
    monkeypatch.setattr(model_cache, "available_memory", lambda: free[1])
    second = cache.get(folders[1])
    assert cache.models() == (second,) and first not in cache.models()
    free[1] = 10
    with pytest.raises(LoadError, match=r"needs about .* of memory and 0\.1 MB are free"):
        cache.get(folders[2])
    assert len(loads) == 2 and cache.models() == ()
