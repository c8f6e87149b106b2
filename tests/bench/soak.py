"""Hours of four robots at 30 Hz on one policy node, over encrypted links: does anything grow, leak or get slower?

    python tests/bench/soak.py --minutes=120 [--record_flight]

Real processes: `tactus serve`, four `tactus run` with a picture and a state each, episodes of a minute; and a bare loop
(absolute deadline, sleep, 1 ms spin) beside them, which says what the machine itself did to a 30 Hz loop meanwhile.
Every 10 s the memory and the open files of each are read. Slopes are Theil and Sen's median of slopes, after a warm-up
of a fifth of the time, ten minutes at most. Ctrl-C ends it early, and it is judged by what there is by then. Exit
status 1 if a robot did not end well or an episode is missing, files were left open, memory grew by 10 MB or, where an
hour or more was measured, by 1 MB/h, or ticks got later, by LATER_MS and by twice what the bare loop's did.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

ROBOTS, FPS, EPISODE_S, SAMPLE_S = 4, 30.0, 60.0, 10.0
INTERRUPTED = 130
LATER_MS = 1.0
"""Below this, on an idle machine, thirds differ by chance: a median there is some hundredths of a millisecond."""
TACTUS = [sys.executable, "-m", "tactus"]


def bare_loop(minutes: int, out: Connection) -> None:
    """Lateness of each tick, p99 in ms for every minute."""
    for _ in range(minutes):
        start_s, late_ms, tick = time.perf_counter(), [], 0
        while tick < EPISODE_S * FPS:
            tick = max(tick + 1, int((time.perf_counter() - start_s) * FPS) + 1)
            deadline_s = start_s + tick / FPS
            if (left_s := deadline_s - 0.001 - time.perf_counter()) > 0:
                time.sleep(left_s)
            while (now_s := time.perf_counter()) < deadline_s:
                pass
            late_ms.append((now_s - deadline_s) * 1000)
        out.send(float(np.percentile(late_ms, 99)))


def make_keys(folder: Path) -> None:
    for name in ("policy", *(f"robot_{i}" for i in range(ROBOTS))):
        subprocess.run([*TACTUS, "keygen", name, f"--output_dir={folder}"], check=True, stdout=subprocess.DEVNULL)
    (folder / "robots").mkdir()
    for file in folder.glob("robot_*.key"):
        file.rename(folder / "robots" / file.name)


def serve(folder: Path) -> tuple[subprocess.Popen[str], str]:
    keys = [f"--curve.key={folder}/policy.key_secret", f"--curve.authorized={folder}/robots"]
    policy = ["--policy.type=ticker", "--policy.cameras=1", "--policy.horizon=25", "--policy.infer_ms=10"]
    node = subprocess.Popen(
        [*TACTUS, "serve", *policy, *keys, "--connect=tcp://127.0.0.1:*"],
        stdout=subprocess.PIPE,
        stderr=(folder / "serve.log").open("w"),
        text=True,
    )
    assert node.stdout is not None
    return node, node.stdout.readline().rpartition(" at ")[2].strip()


def run_robot(index: int, endpoint: str, folder: Path, episodes: int, options: list[str]) -> subprocess.Popen[bytes]:
    keys = [f"--curve.key={folder}/robot_{index}.key_secret", f"--curve.server={folder}/policy.key"]
    robot = ["--robot.type=synthetic", f"--robot.fps={FPS:g}", f"--robot.steps={int(EPISODE_S * FPS)}"]
    robot += ["--robot.cameras=1", "--robot.work_ms=2", f"--episodes={episodes}", f"--output_dir={folder}/out_{index}"]
    log = (folder / f"robot_{index}.log").open("w")
    return subprocess.Popen([*TACTUS, "run", *robot, *keys, *options, f"--connect={endpoint}"], stdout=log, stderr=log)


def slope(times_s: list[float], values: list[float]) -> float:
    """Per hour: the median of the slopes between all pairs of points (Theil, Sen)."""
    t, v = np.array(times_s) / 3600, np.array(values)
    i, j = np.triu_indices(len(t), 1)
    return float(np.median((v[j] - v[i]) / (t[j] - t[i])))


def late_p99(folder: Path, index: int) -> list[float]:
    """Of every episode, in ms."""
    lines = (folder / f"out_{index}" / "timings.jsonl").read_text().splitlines()
    return [json.loads(line)["lateness_ms"]["p99"] for line in lines]


def thirds(values: list[float]) -> tuple[float, float]:
    """Medians of the first and of the last third; the minute in which everything starts aside."""
    third = max(1, (len(values) - 1) // 3)
    return statistics.median(values[1 : 1 + third]), statistics.median(values[-third:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=120)
    parser.add_argument("--record_flight", action="store_true", help="each robot with a flight recorder of 2 minutes")
    parser.add_argument("--folder", type=Path, help="where logs and results go; not given: a temporary one")
    options = parser.parse_args()
    if options.minutes < 3:
        parser.error(f"--minutes: found {options.minutes}; at least 3: the first third is compared with the last")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    make_keys(folder)
    node, endpoint = serve(folder)
    robots = []
    for index in range(ROBOTS):
        flight = [f"--record_flight={folder}/flight_{index}", "--flight_minutes=2"] if options.record_flight else []
        robots.append(run_robot(index, endpoint, folder, options.minutes, flight))
    here, there = multiprocessing.get_context("spawn").Pipe()
    bare = multiprocessing.get_context("spawn").Process(target=bare_loop, args=(options.minutes, there), daemon=True)
    bare.start()
    processes = {"policy node": node.pid, **{f"robot {i}": robot.pid for i, robot in enumerate(robots)}}
    watched = {name: psutil.Process(pid) for name, pid in processes.items()}
    samples: dict[str, list[tuple[float, float, int, int]]] = {name: [] for name in watched}
    began_s, until_s = time.monotonic(), time.monotonic() + 60 * options.minutes
    minutes, ended = options.minutes, 0
    try:
        while time.monotonic() < until_s - SAMPLE_S:
            time.sleep(SAMPLE_S)
            for name, process in watched.items():
                with process.oneshot():
                    sample = process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
                samples[name].append((time.monotonic() - began_s, *sample))
            (folder / "samples.json").write_text(json.dumps(samples))
        patience_s = 300 + 6 * options.minutes  # ticks that were skipped make an episode longer
    except KeyboardInterrupt:
        minutes, ended, patience_s = int((time.monotonic() - began_s - 30) / 60), INTERRUPTED, 30
        for robot in robots:
            robot.send_signal(signal.SIGINT)
    statuses = [robot.wait(patience_s) - ended for robot in robots]
    node.terminate()
    statuses.append(node.wait(30))
    bare_ms = []
    while here.poll(1):
        bare_ms.append(here.recv())
    (folder / "bare.json").write_text(json.dumps(bare_ms))
    return report(folder, minutes, samples, statuses, bare_ms)


def report(
    folder: Path,
    minutes: int,
    samples: dict[str, list[tuple[float, float, int, int]]],
    statuses: list[int],
    bare_ms: list[float],
) -> int:
    warm_s = min(600.0, 60 * minutes / 5)
    wrong = [f"exit statuses {statuses}"] if any(statuses) else []
    print(f"{minutes} minutes, {ROBOTS} robots at {FPS:g} Hz, CURVE; after {warm_s:.0f} s of warm-up; logs in {folder}")
    for name, rows in samples.items():
        rows = [row for row in rows if row[0] >= warm_s]
        times_s, rss_mb, fds, threads = (list(column) for column in zip(*rows, strict=True))
        per_h = slope(times_s, rss_mb)
        print(
            f"{name:12} RSS {rss_mb[0]:6.1f} → {rss_mb[-1]:6.1f} MB, slope {per_h:+6.3f} MB/h; "
            f"files {min(fds)}–{max(fds)}; threads {min(threads)}–{max(threads)}"
        )
        if per_h >= 1 and minutes >= 60:
            wrong.append(f"{name} grows by {per_h:.2f} MB/h")
        if rss_mb[-1] - rss_mb[0] > 10:
            wrong.append(f"{name} grew by {rss_mb[-1] - rss_mb[0]:.1f} MB")
        if max(fds) > min(fds) + 2:
            wrong.append(f"{name} has {min(fds)} to {max(fds)} files open")
    before_ms, after_ms = thirds(bare_ms)
    bare = max(1.0, after_ms / before_ms)
    print("p99 lateness of a minute's ticks: median; of the first third → of the last")
    print(f"bare loop    {statistics.median(bare_ms):6.3f}; {before_ms:6.3f} → {after_ms:6.3f} ms")
    for index in range(ROBOTS):
        rows = [json.loads(line) for line in (folder / f"out_{index}" / "episodes.jsonl").read_text().splitlines()]
        late_ms = late_p99(folder, index)
        before_ms, after_ms = thirds(late_ms)
        ticks, starved = (sum(row[key] for row in rows) for key in ("ticks", "starved_ticks"))
        skipped, resends = (sum(row[key] for row in rows) for key in ("skipped_ticks", "resends"))
        print(
            f"robot {index}      {statistics.median(late_ms):6.3f}; {before_ms:6.3f} → {after_ms:6.3f} ms; "
            f"{len(rows)} episodes, {ticks} ticks, {starved} starved, {skipped} skipped, {resends} resends"
        )
        if after_ms > before_ms + LATER_MS and after_ms > 2 * bare * before_ms and minutes >= 60:
            wrong.append(f"robot {index}: ticks get later")
        if sorted(row["episode"] for row in rows)[:minutes] != list(range(minutes)):
            wrong.append(f"robot {index}: {len(rows)} of {minutes} episodes")
    print("holds" if not wrong else "does not hold: " + "; ".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
