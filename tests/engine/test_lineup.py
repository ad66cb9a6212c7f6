"""Which ladders are loaded and which removed, from real folders."""

from pathlib import Path

from faulty_ladders import write_scripts

from flyball.engine.lineup import difference, read


def folder(root: Path, name: str = "t", version: str = "1") -> Path:
    path = write_scripts(root, {"a": {}}, version)
    manifest = path / "flyball-ladder.toml"
    manifest.write_text(manifest.read_text().replace('name = "t"', f'name = "{name}"', 1))
    return path


def test_a_folder_named_on_the_command_line_wins_over_a_configured_and_that_over_an_installed_one(tmp_path):
    installed, configured, named = (folder(tmp_path / v, version=v) for v in "123")
    assert read({"t": installed}, {"t": configured}, [named]).folders["t"].version == "3"
    assert read({"t": installed}, {"t": configured}, []).folders["t"].version == "2"
    assert read({"t": installed}, {}, []).folders["t"].version == "1"


def test_one_broken_ladder_is_a_problem_and_the_others_are_read(tmp_path):
    good, bad = folder(tmp_path / "good", "good"), folder(tmp_path / "bad", "bad")
    (bad / "flyball-ladder.toml").write_text("[ladder\n")
    lineup = read({"good": good, "bad": bad}, {}, [])
    assert list(lineup.folders) == ["good"]
    assert len(lineup.problems) == 1
    assert str(bad) in lineup.problems[0]


def test_a_folder_that_holds_another_ladder_than_its_name_says_is_a_problem(tmp_path):
    path = folder(tmp_path / "x", "other")
    lineup = read({}, {"t": path}, [])
    assert lineup.folders == {}
    assert "expected the ladder 't', found 'other'" in lineup.problems[0]


def test_only_what_changed_is_loaded_and_only_what_is_gone_is_removed(tmp_path):
    wanted = read({}, {}, [folder(tmp_path / "a", "a"), folder(tmp_path / "b", "b")]).folders
    same = read({}, {}, [folder(tmp_path / "a", "a"), folder(tmp_path / "c", "c")]).folders
    changes = difference(wanted, same, failed=[], kept=[])
    assert [f.name for f in changes.load] == ["b"]
    assert changes.remove == ("c",)


def test_a_new_version_at_the_same_place_is_loaded(tmp_path):
    before = read({}, {}, [folder(tmp_path / "a", version="1")]).folders
    after = read({}, {}, [folder(tmp_path / "a", version="2")]).folders
    assert [f.version for f in difference(after, before, failed=[], kept=[]).load] == ["2"]


def test_a_ladder_that_cannot_answer_is_loaded_again_though_nothing_changed(tmp_path):
    folders = read({}, {}, [folder(tmp_path / "a")]).folders
    assert difference(folders, folders, failed=[], kept=[]).load == ()
    assert [f.name for f in difference(folders, folders, failed=["t"], kept=[]).load] == ["t"]


def test_what_cannot_be_read_just_now_stays(tmp_path):
    folders = read({}, {}, [folder(tmp_path / "a")]).folders
    assert difference({}, folders, failed=[], kept=["t"]).remove == ()
