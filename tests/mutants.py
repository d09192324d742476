"""Mutation testing with cosmic-ray: the changes of a module that no test notices.

`python tests/mutants.py MODULE [N]` changes milr/MODULE.py in N random places (0: in all), one at a time, in a git
worktree of its own, so that the project is not touched. Needs `pip install cosmic-ray`. Changes that can only raise
(shifts and bit operations on numbers that are not whole) are not drawn when N is given.
"""

import os, random, sqlite3, subprocess, sys, tempfile
from pathlib import Path

ROOT, BIN = Path(__file__).parent.parent, Path(sys.executable).parent
ESTIMATOR = "tests/test_mi.py tests/test_faults_estimator.py"
TESTS = {
    "policy": "tests/test_policy.py",
    **{m: ESTIMATOR for m in ("mi", "ties", "checks", "kernels", "projection", "neighbours", "products")},
    "auto": "tests/test_schedules.py",
    "start": "tests/test_start.py",
}
CONFIG = """[cosmic-ray]
module-path = "milr/{module}.py"
timeout = 300.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -n 0 -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def keep_some(db, n):
    "Leave `n` random mutations in the session."
    drawn = [
        j
        for j, op in db.execute(
            "select job_id, operator_name from mutation_specs "
            "order by module_path, operator_name, occurrence, start_pos_row, start_pos_col"
        )
        if not any(w in op for w in ("Shift", "Bit"))
    ]
    kept = set(random.Random(0).sample(drawn, min(n, len(drawn))))
    for table in ("mutation_specs", "work_items", "work_results"):
        db.executemany(
            f"delete from {table} where job_id = ?",
            [(j,) for (j,) in db.execute(f"select job_id from {table}").fetchall() if j not in kept],
        )
    db.commit()


def survivors(db):
    "(line, operator, the changed lines) of each mutation that no test noticed."
    for op, line, diff in db.execute(
        "select m.operator_name, m.start_pos_row, r.diff from mutation_specs m join work_results r "
        "on m.job_id = r.job_id where r.test_outcome = 'SURVIVED' order by 2"
    ):
        yield (
            line,
            op.split("/")[-1],
            [l for l in diff.split("\n") if l[:1] in ("+", "-") and l[:3] not in ("+++", "---")],
        )


def main(module, n=0):
    with tempfile.TemporaryDirectory() as folder:
        tree, session, config = Path(folder) / "tree", Path(folder) / "session.sqlite", Path(folder) / "config.toml"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree], cwd=ROOT, check=True)
        try:
            config.write_text(CONFIG.format(module=module, python=sys.executable, tests=TESTS[module]))
            env = os.environ | {
                "PYTHONPATH": str(tree),
                "NUMBA_CACHE_DIR": str(Path(folder) / "numba"),
                "OMP_NUM_THREADS": "1",
            }
            subprocess.run([BIN / "cosmic-ray", "init", config, session], cwd=tree, check=True)
            with sqlite3.connect(session) as db:
                if n:
                    keep_some(db, n)
            subprocess.run([BIN / "cosmic-ray", "exec", config, session], cwd=tree, env=env, check=True)
            with sqlite3.connect(session) as db:
                found, (total,) = list(survivors(db)), db.execute("select count(*) from work_results").fetchone()
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    for line, op, diff in found:
        print(f"line {line}, {op}", *diff, sep="\n  ")
    print(f"{module}: {total} mutants, {total - len(found)} noticed, {len(found)} not")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
