"""tools/tidy: each rule is shown a tree that breaks it, and one that does not."""
import os
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LAYERS = "base:\nos: base\ncore: base\nproto: base core\njournal: base os\nmain: base os core proto journal\nsql: base\napart proto\nordered sql: low high\n"
CLEAN = {
    "LAYERS": LAYERS,
    ".clang-format": open(os.path.join(TOP, ".clang-format")).read(),
    "src/base/cell.h": "/* cell: a number. */\n#ifndef CELL_H\n#define CELL_H\nint cell_get(void);\n#endif\n",
    "src/base/cell.c": '/* cell. */\n#include "base/cell.h"\n\nint cell_get(void)\n{\n    return 1;\n}\n',
    "src/base/README.md": "base\n",
}

# rule, files added to the clean tree, what the complaint must contain (None: no complaint)
CASES = [
    ("layers", {"src/core/a.c": '/* a */\n#include "base/cell.h"\n'}, None),
    ("layers", {"src/core/a.c": '/* a */\n#include "cell.h"\n'}, "write the path from src/"),
    ("layers", {"src/base/a.c": '/* a */\n#include "cell.h"\n'}, None),
    ("layers", {"src/core/a.c": '/* a */\n#include "os/os.h"\n'}, "core may not include os"),
    ("layers", {"src/core/a.c": '/* a */\n#include "proto/x/e.h"\n'}, "core may not include proto"),
    ("layers", {"src/proto/x/a.c": '/* a */\n#include "proto/y/e.h"\n'}, "do not know each other"),
    ("layers", {"src/proto/x/a.c": '/* a */\n#include "proto/x/e.h"\n'}, None),
    ("layers", {"src/sql/high/a.c": '/* a */\n#include "sql/low/e.h"\n'}, None),
    ("layers", {"src/sql/low/a.c": '/* a */\n#include "sql/high/e.h"\n'}, "sql/low is not above sql/high"),
    ("layers", {"src/sql/new/e.c": '/* a */\n#include "sql/low/e.h"\n'}, "sql/new is not above sql/low"),
    ("layers", {"src/sql/e.c": '/* a */\n#include "sql/low/e.h"\n'}, None),
    ("layers", {"src/util/a.c": "/* a */\n"}, "not in LAYERS"),
    ("strings", {"src/base/a.c": "/* a */\nvoid a(char *x){ strcpy(x, x); }\n"}, "a.c:2"),
    ("strings", {"src/base/a.c": '/* strcpy(a) */\nconst char *a = "strcpy(a)"; // strcpy(a)\n'}, None),
    ("strings", {"src/base/a.c": "/* a */\nvoid a(char *x){ my_strcpy(x, x); }\n"}, None),
    ("heap", {"src/base/a.c": "/* a */\nvoid a(void *x){ free(x); }\n"}, "free()"),
    ("heap", {"src/base/mem.c": "/* a */\nvoid a(void *x){ free(x); }\n"}, None),
    ("heap", {"src/base/a_test.c": "/* a */\nvoid a(void *x){ free(x); }\n"}, None),
    ("files", {"src/core/a.c": "/* a */\nvoid a(int x){ write(x, 0, 0); }\n"}, "write()"),
    ("files", {"src/os/a.c": "/* a */\nvoid a(int x){ write(x, 0, 0); }\n"}, None),
    ("files", {"src/core/a.c": "/* a */\nvoid a(struct os *o){ o->open(o, 0); }\n"}, None),
    ("sockets", {"src/net/a.c": "/* a */\nvoid a(int x){ connect(x); }\n", "LAYERS": LAYERS + "net: base\n"}, "connect()"),
    ("sockets", {"src/main/bench/load.c": "/* a */\nvoid a(int x){ connect(x); }\n"}, None),
    ("sockets", {"src/core/a.c": "/* a */\nstatic void send(int x)\n{\n}\nvoid a(int x){ send(x); }\n"}, None),
    ("threads", {"src/core/a.c": "/* a */\nvoid a(void){ sleep(1); }\n"}, "sleep()"),
    ("clocks", {"src/core/a.c": "/* a */\nlong a(void){ return time(0); }\n"}, "time()"),
    ("clocks", {"src/core/a.c": "/* a */\nlong a(void){ return run_time(0); }\n"}, None),
    ("endings", {"src/core/a.c": "/* a */\nvoid a(void){ abort(); }\n"}, "abort()"),
    ("settings", {"src/core/a.c": '/* a */\nvoid a(void){ getenv("A"); }\n'}, "getenv()"),
    ("disk", {"src/core/a.c": "/* a */\nvoid a(struct os *o){ o->pwrite(o); }\n"}, "above journal"),
    ("disk", {"src/journal/a.c": "/* a */\nvoid a(struct os *o){ o->pwrite(o); }\n"}, None),
    ("headers", {"src/base/a.h": "/* a */\nint a(struct nowhere x, size_t y);\n"}, "does not compile alone"),
    ("headers", {}, None),
    ("names", {"src/base/string_util.c": "/* a */\n"}, "'util'"),
    ("names", {"src/base/utility.c": "/* a */\n"}, None),
    ("essays", {"src/base/a.c": "int a;\n"}, "no comment"),
    ("readmes", {"src/core/a.c": "/* a */\n"}, "src/core"),
    ("marks", {"src/base/a.c": "/* a */\n// TO" "DO: later\n"}, "unfinished"),
    ("marks", {"tests/a.py": "# FIX" "ME\n"}, "unfinished"),
    ("paths", {"docs/a.md": "see /wo" "rk/main\n"}, "a path of one machine"),
    ("paths", {"docs/a.md": "see net/wo" "rk/main\n"}, None),
    ("globals", {"src/base/a.c": "/* a */\nstatic int counter;\n"}, "variable counter"),
    ("globals", {"src/base/a.c": "/* a */\nstruct thing *things[4] = {0};\n"}, "variable things"),
    ("globals", {"src/base/a.c": "/* a */\nstatic const int table[] = {1};\nstruct later;\n"}, None),
    ("globals", {"src/base/a.c": "/* a */\nint a(void)\n{\n    int local = 1;\n    return local;\n}\n"}, None),
    ("layout", {"src/base/a.c": "/* a */\nint  a ;\n"}, "not laid out"),
    ("layout", {}, None),
]


def tidy(root, *arguments):
    command = ["/usr/bin/python3", os.path.join(TOP, "tools/tidy"), "--root", str(root), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def plant(root, files):
    for path, text in files.items():
        os.makedirs(os.path.dirname(root / path), exist_ok=True)
        (root / path).write_text(text)


@pytest.mark.parametrize("rule,files,complaint", CASES, ids=[f"{n}-{row[0]}" for n, row in enumerate(CASES)])
def test_rule(tmp_path, rule, files, complaint):
    plant(tmp_path, {**CLEAN, **files})
    done = tidy(tmp_path, "--only", rule)
    if complaint is None:
        assert done.returncode == 0, done.stdout
        assert done.stdout.splitlines()[-1] == "1 passed, 0 failed"
    else:
        assert done.returncode == 1, done.stdout
        assert complaint in done.stdout
        assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_every_rule_has_a_case_that_breaks_it():
    done = tidy(TOP, "--only", "no-such-rule")
    rules = set()
    probe = subprocess.run(["/usr/bin/python3", os.path.join(TOP, "tools/tidy"), "--only", "?"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode != 0
    rules = set(probe.stderr.strip().split("there are: ")[1].split(", "))
    assert rules == {row[0] for row in CASES if row[2]}


def test_the_clean_tree_is_clean(tmp_path):
    plant(tmp_path, CLEAN)
    assert tidy(tmp_path).returncode == 0
