"""Configuration: defaults, layers, and every mistake at once."""

from pathlib import Path

import pytest

from flyball.config import Config, load
from flyball.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path / "flyball.toml", ""))
    assert config == Config()
    assert config.serving.http == "127.0.0.1:8000"
    assert not config.uplink.enabled


def test_conf_d_is_laid_over_the_main_file_in_order(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", '[governor]\nperiod_s = 2\ndwell_s = 3\n[ladder.a]\nrung = "x"\n')
    write(tmp_path / "conf.d/20-b.toml", "[governor]\nperiod_s = 5\n")
    write(tmp_path / "conf.d/10-a.toml", '[governor]\nperiod_s = 4\n[ladder.b]\nrung = "y"\n')
    config = load(main)
    assert config.governor.period_s == 5
    assert config.governor.dwell_s == 3
    assert {name: s.rung for name, s in config.ladder.items()} == {"a": "x", "b": "y"}


def test_every_mistake_is_reported_with_its_file_and_key(tmp_path: Path) -> None:
    main = write(
        tmp_path / "flyball.toml",
        'schema = 2\n[servin]\n[serving]\nhttp = "x"\n[engine]\nslots = 0\nqueue_limit = "a"\n'
        '[governor.limits]\nlatency_p95_ms = -1\n[ladder."a/b"]\n[ladder.x]\npat = "/x"\n',
    )
    other = write(tmp_path / "conf.d/10.toml", "[sensing]\nidle_w = 1\nperiods_s = 3\n")
    with pytest.raises(ConfigError) as caught:
        load(main)
    problems = "\n".join(caught.value.problems)
    for expected in (
        f"{main}: schema: ",
        f"{main}: servin: unknown key; did you mean 'serving'?",
        f"{main}: serving.http: expected HOST:PORT",
        f"{main}: engine.slots: ",
        f"{main}: engine.queue_limit: ",
        f"{main}: governor.limits.latency_p95_ms: ",
        f"{main}: ladder.a/b",
        f"{main}: ladder.x.pat: unknown key; did you mean 'path'?",
        f"{other}: sensing.periods_s: unknown key; did you mean 'period_s'?",
    ):
        assert expected in problems
    assert len(caught.value.problems) == 9


def test_what_no_single_key_shows_is_checked_too(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", "[sensing]\nidle_w = 1\n[governor]\ndown_windows = 4\nof_windows = 2\n")
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert [("idle_w" in p, "down_windows" in p) for p in caught.value.problems] == [(True, False), (False, True)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a = ", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (b"engine = 3", "expected a table, found 3")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "flyball.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(path)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["device\\n", "a b", "-a", "a/b", "", "x" * 65])
def test_an_identifier_is_one_to_its_very_end(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 64 letters"):
        load(write(tmp_path / "flyball.toml", f'[uplink]\ndevice = "{name}"\n'))


def problems(main: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(main)
    return caught.value.problems


def test_conf_d_counts_without_a_main_file(tmp_path: Path) -> None:
    assert load(None, tmp_path / "flyball.toml") == Config()
    write(tmp_path / "conf.d/limits.toml", "[governor.limits]\nlatency_p95_ms = 30\n")
    assert load(None, tmp_path / "flyball.toml").governor.limits.latency_p95_ms == 30
    write(tmp_path / "flyball.toml", "[governor]\nperiod_s = 2\n")
    assert load(None, tmp_path / "flyball.toml").governor.period_s == 2
    (tmp_path / "flyball.toml").unlink()
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "flyball.toml")  # a file that is named must be there


def test_a_fragment_is_judged_together_with_what_it_is_laid_over(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", "[sensing]\nidle_w = 2\nwindow_s = 2\n[governor]\nof_windows = 9\n")
    write(tmp_path / "conf.d/10.toml", "[sensing]\nload_w = 9\n[governor]\ndown_windows = 5\n")
    write(tmp_path / "conf.d/20.toml", '[ladder.x.cascade]\nfirst = "a"\nthen = "b"\n')
    write(tmp_path / "conf.d/30.toml", "[ladder.x.cascade]\nthreshold = 0.5\n")
    config = load(main)
    assert (config.sensing.load_w, config.governor.down_windows) == (9, 5)
    assert config.ladder["x"].cascade is not None
    assert config.ladder["x"].cascade.first == "a"


def test_mistakes_of_several_files_together_name_the_files(tmp_path: Path) -> None:
    main = write(tmp_path / "flyball.toml", "[sensing]\nwindow_s = 2\n")
    period = write(tmp_path / "conf.d/10.toml", "[sensing]\nperiod_s = 5\n")
    cascade = write(tmp_path / "conf.d/20.toml", '[ladder."a.b".cascade]\nthreshold = 0.5\nthen = "x"\n')
    found = problems(main)
    assert [p.split(": ")[0] for p in found] == [f"{main}, {period}", str(cascade)]
    assert "window_s: expected at least period_s" in found[0]
    assert "ladder.a.b.cascade.first: missing; expected 1 to 64 letters" in found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sensing]\nwindow_s = inf", "sensing.window_s: expected a number above 0, at most 86400, found inf"),
        ("[sensing]\nwindow_s = nan", "sensing.window_s: expected a number"),
        ("[governor]\nclimb_backoff_s = inf", "governor.climb_backoff_s: expected a number from 0 to 1000000000"),
        ('[serving]\nhttp = "127.0.0.1:99999"', "serving.http: expected HOST:PORT with a port up to 65535"),
        ('[serving]\nhttp = "127.0.0.1:65536"', "serving.http: expected HOST:PORT"),
        ('[uplink]\nbroker = "mqtt://a:65536"', "uplink.broker: expected mqtt://HOST[:PORT]"),
        ('[uplink]\nbroker = "mqtt://a:0"', "uplink.broker: expected mqtt://HOST[:PORT]"),
        ('[uplink]\nbroker = "mqtt://u:p@a"', "uplink.broker: expected mqtt://HOST[:PORT]"),
        ('[uplink]\nbroker = "wss://a:0/mqtt"', "uplink.broker: expected mqtt://HOST[:PORT]"),
        ('[uplink]\nbroker = "mqtts://a/mqtt"', "uplink.broker: expected mqtt://HOST[:PORT]"),
        ('[uplink]\nproxy = "http://u:p@a"', "uplink.proxy: expected http://HOST[:PORT] without a user name"),
        ('[uplink]\nproxy = "socks5://a"', "uplink.proxy: expected http://HOST[:PORT]"),
        ('[uplink]\npassword_file = "/x"', "uplink: password_file: give username, too"),
        ('[uplink]\nproxy_username = "x"', "uplink: proxy_username, proxy_password_file: give proxy, too"),
        ('[uplink.tls]\nca_file = "/x"', "uplink: tls: it counts with mqtts:// and wss:// only"),
        (
            '[uplink]\nbroker = "mqtts://a"\ntls.key_file = "/x"',
            "uplink.tls: certificate_file, key_file: give both or none",
        ),
        ('[uplink.commands]\nallow = ["ping", "dance"]', "uplink.commands.allow: expected a list, each one of ping, "),
        ('[uplink.commands]\ninstall_hosts = ["https://a"]', "uplink.commands.install_hosts: expected a list, each"),
        ('[serving]\nmetrics = "127.0.0.1:8000"', "serving: http, metrics: both would listen on 127.0.0.1:8000"),
        ('[serving]\nmetrics = "localhost:8000"', "both would listen"),
        ('[serving]\nmetrics = "0.0.0.0:8000"', "both would listen"),
        ('[serving]\nhttp = "[::]:90"\nmetrics = "[::1]:090"', "both would listen"),
        ('log = "xml"', "log: expected one of text, json, found 'xml'"),
    ],
)
def test_what_the_daemon_could_not_start_with_is_told_before(tmp_path: Path, text: str, expected: str) -> None:
    main = write(tmp_path / "flyball.toml", text)
    (problem,) = problems(main)
    assert f"{main}: {expected}" in problem or (expected == "both would listen" and expected in problem)


@pytest.mark.parametrize(
    "text",
    [
        '[serving]\nhttp = "[::]:8000"\nmetrics = "0.0.0.0:8000"',
        '[serving]\nhttp = ""\nmetrics = ""',
        '[serving]\nhttp = "127.0.0.1:0"\nmetrics = "127.0.0.1:0"',
        '[serving]\nhttp = "10.0.0.1:65535"\nmetrics = "10.0.0.2:65535"',
        '[uplink]\nbroker = "mqtt://broker.example:65535"\ncommands.allow = []',
        '[uplink]\nbroker = "wss://[::1]:443/a/b?c=d"\nproxy = "http://proxy:8080"\ntls.ca_file = "/x"',
        '[uplink]\nbroker = "mqtts://a"\n[uplink.tls]\ncertificate_file = "/x"\nkey_file = "/y"',
        '[uplink.commands]\ninstall_hosts = ["models.example", "10.0.0.3:8443"]',
    ],
)
def test_what_it_can_start_with(tmp_path: Path, text: str) -> None:
    load(write(tmp_path / "flyball.toml", text))
