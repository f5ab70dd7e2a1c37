//! Texts that include others: what is found, what is redefined, where errors stand.

use super::mock::{Mock, value};
use super::{config, errors};
use crate::{Code, Diag, Included, Role, Source, compile};

/// Texts by name, as a caller keeps them.
fn find(texts: &[(&str, &str)], name: &str) -> Result<Included, String> {
    let found = texts.iter().find(|(n, _)| *n == name);
    found
        .map(|(n, t)| Included { file: (*n).to_owned(), text: (*t).to_owned() })
        .ok_or_else(|| "there are a.c and b.c".to_owned())
}

fn build(texts: &[(&str, &str)], roles: &[(&str, Role)]) -> Result<Code, Vec<Diag>> {
    let text = |name: &str| texts.iter().find(|(n, _)| *n == name).map_or("", |(_, t)| *t);
    let sources: Vec<Source<'_>> =
        roles.iter().map(|(file, role)| Source { file, text: text(file), role: *role }).collect();
    compile(&sources, &|name, _| find(texts, name), &["test"], &config(2, 64))
}

/// The value of `out` after `test` of `main.c` and what it includes.
fn out(texts: &[(&str, &str)]) -> i64 {
    let code = build(texts, &[("main.c", Role::Litmus)])
        .unwrap_or_else(|diags| panic!("{}", diags.iter().map(|d| format!("{d}\n")).collect::<String>()));
    let config = config(2, 64);
    let run = Mock::new(&code, &config).run(&code.entries[0], &[]);
    value(&code, &run, "out")
}

fn shown(result: Result<Code, Vec<Diag>>) -> String {
    result.err().unwrap_or_default().iter().map(|d| format!("{d}\n")).collect()
}

const OLD: &str = "#define LIMIT 3\nenum { BASE = LIMIT * 10 };\nint out;\n\
    static int step(int n) { return n + 1; }\n\
    static int twice(int n) { return step(step(n)); }\n";

#[test]
fn a_text_stands_where_it_is_included_and_once() {
    let test = "#include \"old.c\"\nvoid test(void) { out = twice(BASE); }";
    assert_eq!(out(&[("main.c", test), ("old.c", OLD)]), 32);
    let twice = "#include \"b.c\"\n#include \"old.c\"\n#include \"b.c\"\nvoid test(void) { out = more(1); }";
    let b = "#include \"old.c\"\nstatic int more(int n) { return twice(n) + LIMIT; }";
    assert_eq!(out(&[("main.c", twice), ("b.c", b), ("old.c", OLD)]), 6);
    let before =
        "#define SIZE 4\n#include \"sized.c\"\nvoid test(void) { list[SIZE - 1] = 5; out = list[3]; }";
    assert_eq!(out(&[("main.c", before), ("sized.c", "int list[SIZE]; int out;")]), 5);
}

#[test]
fn a_text_redefines_functions_and_constants_of_what_it_includes() {
    let new = "#include \"old.c\"\nstatic int step(int n) { return n + 5; }\nvoid test(void) { out = twice(BASE); }";
    assert_eq!(out(&[("main.c", new), ("old.c", OLD)]), 40, "calls in the old text reach the new function");
    let constant = "#include \"old.c\"\n#define LIMIT 4\nvoid test(void) { out = BASE; }";
    assert_eq!(out(&[("main.c", constant), ("old.c", OLD)]), 40, "it stands in the old one's place");
    let below =
        "static int step(int n) { return n; }\nvoid test(void) { out = twice(7); }\n#include \"old.c\"";
    assert_eq!(out(&[("main.c", below), ("old.c", OLD)]), 7, "the order of definition and include is free");
    let chain = [
        (
            "main.c",
            "#include \"b.c\"\nstatic int step(int n) { return n; }\nvoid test(void) { out = twice(7); }",
        ),
        ("b.c", "#include \"old.c\"\nstatic int step(int n) { return n + 2; }"),
        ("old.c", OLD),
    ];
    assert_eq!(out(&chain), 7, "the outermost counts");
    let both = [
        (
            "main.c",
            "#include \"b.c\"\n#include \"c.c\"\nstatic int f(void) { return 9; }\nint out; void test(void) { out = f(); }",
        ),
        ("b.c", "static int f(void) { return 1; }"),
        ("c.c", "static int f(void) { return 2; }"),
    ];
    assert_eq!(out(&both), 9);
}

#[test]
fn hooks_and_policies_can_be_redefined() {
    let kernel = "void hook(void);\nint out;\nvoid test(void) { hook(); }";
    let texts = [
        ("k.c", kernel),
        ("old.c", "static int n(void) { return 1; }\nvoid hook(void) { out = n(); }"),
        ("p.c", "#include \"old.c\"\nstatic int n(void) { return 8; }"),
    ];
    let code = build(&texts, &[("k.c", Role::Kernel), ("p.c", Role::Policy)]).expect("compiles");
    let config = config(2, 64);
    let run = Mock::new(&code, &config).run(&code.entries[0], &[]);
    assert_eq!(value(&code, &run, "out"), 8);
    assert_eq!(code.files, ["k.c", "p.c", "old.c"]);
}

#[test]
fn errors_stand_in_the_text_they_are_in() {
    let main = "#include \"a.c\"\nvoid test(void) { f(); }";
    let inner = shown(build(
        &[("main.c", main), ("a.c", "int x;\nstatic void f(void) { y = 1; }")],
        &[("main.c", Role::Litmus)],
    ));
    assert!(inner.contains("--> a.c:2:23") && inner.contains("unknown name `y`"), "{inner}");

    let habits = shown(build(
        &[
            ("main.c", "#include <linux/kvm_host.h>\n#include \"a.c\"\nvoid test(void) { f(vm0); x = 1; }"),
            (
                "a.c",
                "#include <asm/svm.h>\nstruct kvm { int n; };\nstatic void f(struct kvm *k) { k.n = y; k.m = 1; }",
            ),
        ],
        &[("main.c", Role::Litmus)],
    ));
    for place in ["main.c:1:10", "main.c:3:27", "a.c:1:10", "a.c:3:33", "a.c:3:38", "a.c:3:42", "a.c:3:43"] {
        assert!(habits.contains(&format!("--> {place}\n")), "{place}\n{habits}");
    }
    assert_eq!(habits.matches("error: ").count(), 7, "{habits}");

    let none =
        shown(build(&[("main.c", "#include \"x.c\"\nvoid test(void) { }")], &[("main.c", Role::Litmus)]));
    assert!(none.contains("--> main.c:1:10") && none.contains("there are a.c and b.c"), "{none}");

    let cycle = [
        ("main.c", "#include \"a.c\"\n"),
        ("a.c", "#include \"b.c\"\n"),
        ("b.c", "int x;\n#include \"a.c\"\n"),
    ];
    let cycle = shown(build(&cycle, &[("main.c", Role::Litmus)]));
    assert!(cycle.contains("--> b.c:2:10") && cycle.contains("a.c -> b.c -> a.c"), "{cycle}");
    assert_eq!(cycle.matches("includes itself").count(), 1, "{cycle}");
    let own = shown(build(&[("main.c", "#include \"main.c\"")], &[("main.c", Role::Litmus)]));
    assert!(own.contains("main.c -> main.c"), "{own}");

    let strangers = [
        ("main.c", "#include \"a.c\"\n#include \"b.c\"\nvoid test(void) { }"),
        ("a.c", "static void f(void) { }"),
        ("b.c", "\nstatic void f(void) { }"),
    ];
    let strangers = shown(build(&strangers, &[("main.c", Role::Litmus)]));
    assert!(strangers.contains("--> b.c:2:13") && strangers.contains("defined twice"), "{strangers}");

    let differs = [
        ("main.c", "#include \"a.c\"\nstatic void f(int n) { }\nvoid test(void) { f(1); }"),
        ("a.c", "static void f(void) { }"),
    ];
    let differs = shown(build(&differs, &[("main.c", Role::Litmus)]));
    assert!(
        differs.contains("--> main.c:2:13") && differs.contains("differs from what it replaces"),
        "{differs}"
    );

    let roles = [("k.c", "void hook(void);\nvoid test(void) { hook(); }"), ("p.c", "#include \"k.c\"\n")];
    let roles = shown(build(&roles, &[("k.c", Role::Kernel), ("p.c", Role::Policy)]));
    assert!(roles.contains("`k.c` is a kernel text here") && roles.contains("this is a policy"), "{roles}");
}

#[test]
fn endless_texts_are_refused() {
    let find = |name: &str, _: &str| {
        let n: u32 = name.parse().unwrap_or(0);
        Ok(Included { file: name.to_owned(), text: format!("#include \"{}\"", n + 1) })
    };
    let source = Source { file: "0", text: "#include \"1\"", role: Role::Litmus };
    let error = compile(&[source], &find, &[], &config(2, 64)).unwrap_err()[0].to_string();
    assert!(error.contains("too many texts"), "{error}");
}

#[test]
fn directives_are_refused_with_what_would_do() {
    for (text, word) in [
        ("#include <linux/kvm.h>", "leave `#include <...>` out"),
        ("#include \"a.c", "strings"),
        ("#include \"a.c\" x", "the end of the line"),
        ("#ifdef X", "there is no preprocessor"),
        ("int x = \"a\";", "strings"),
    ] {
        let found = errors::first(text);
        assert!(found.contains(word), "{text}\n{found}");
    }
}
