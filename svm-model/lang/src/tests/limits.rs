//! Texts that are large: compiled in short, or refused.

use std::time::Instant;

use super::{config, litmus};
use crate::{compile, no_includes};

/// `n` lines.
fn lines(n: usize, line: impl Fn(usize) -> String) -> String {
    (0..n).map(|i| line(i) + "\n").collect()
}

/// Texts of `n` times the same, each with what it is.
fn shapes(n: usize) -> Vec<(&'static str, String)> {
    let body = |lines: String| format!("int g; bool h;\nvoid test(void) {{\n{lines}}}\n");
    let repeated = |line: &str| body(lines(n, |_| line.to_owned()));
    vec![
        ("increments", repeated("g++;")),
        ("choices", repeated("if (maybe()) g = any_of(3);")),
        ("loops", repeated("while (READ_ONCE(h)) g++;")),
        ("ifs", body(lines(n, |i| format!("if (g == {}) g = {};", i % 100, i % 50)))),
        ("jumps", body(lines(n, |i| format!("if (h) goto l{i}; g = 1; l{i}: g = 2;")))),
        (
            "locals that are all live",
            body(lines(n, |i| format!("int v{i} = any_of(2);")) + &lines(n, |i| format!("g = v{i};"))),
        ),
        ("locals that nobody reads", body(lines(n, |i| format!("int v{i} = any_of(2);")))),
        ("locals that are loaded", body(lines(n, |i| format!("int v{i} = g;")))),
        ("calls of what is not there", body(lines(n, |i| format!("foo{i}();")))),
        (
            "a switch",
            body(format!("switch (g) {{\n{}}}\n", lines(n.min(120), |i| format!("case {i}: g = {i};")))),
        ),
        (
            "functions",
            "int g;\n".to_owned()
                + &lines(n, |i| format!("static void f{i}(void) {{ g++; }}"))
                + "void test(void) { f0(); }",
        ),
        ("variables", lines(n, |i| format!("int g{i};")) + "void test(void) { g0 = 1; }"),
        (
            "a chain",
            body("int a = g;\n".to_owned() + &lines(n, |i| format!("a = a * 3 + {};", i % 100)) + "g = a;"),
        ),
        (
            "masks",
            "cpumask_t m; void test(void) { cpumask_var_t l; zalloc_cpumask_var(&l, 0);\n".to_owned()
                + &lines(n, |i| format!("if (cpumask_test_cpu({}, l)) cpumask_or(l, l, &m);", i % 2))
                + "}",
        ),
    ]
}

#[test]
fn what_is_accepted_compiles_in_short() {
    for n in [500, 2_000, 20_000] {
        for (name, text) in shapes(n) {
            let begin = Instant::now();
            let done = compile(&[litmus(&text)], &no_includes, &["test"], &config(2, 64));
            let took = begin.elapsed().as_secs_f64();
            // Two seconds, where nothing else runs; without the limits most of them take minutes.
            assert!(
                took < 10.0,
                "{n} {name}: {took} s, {} operations",
                done.map_or(0, |code| code.ops.len())
            );
        }
    }
}

#[test]
fn actors_have_a_limit_and_all_of_them_together_have_one() {
    let large = |n: usize| format!("void test(void) {{ {} }}", "g++; ".repeat(n));
    let errors = |text: &str, entries: &[&str]| {
        let diags = compile(&[litmus(text)], &no_includes, entries, &config(2, 64)).err().unwrap_or_default();
        diags
            .iter()
            .map(|d| format!("{}: {}", d.message, d.expected.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let one = errors(&format!("int g; {}", large(3_000)), &["test"]);
    assert_eq!(
        one,
        ["`test` is too large once its calls are inlined: more than 12000 operations and calls up to here"]
    );
    let names: Vec<String> = (0..10).map(|i| format!("f{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = names.iter().fold("int g;".to_owned(), |text, name| text + &large(1_000).replace("test", name));
    assert_eq!(errors(&all, &names[..4]), Vec::<String>::new());
    let ten = errors(&all, &names);
    assert!(ten[0].ends_with("more than 48000 operations and calls of all actors up to here"), "{ten:?}");
}

#[test]
fn errors_are_counted_and_the_first_are_shown() {
    let text = (0..1_000)
        .fold("void test(void) {".to_owned(), |text, i| text + &format!("cpumask_se{i}();\n"))
        + "}";
    let diags = compile(&[litmus(&text)], &no_includes, &["test"], &config(2, 64)).unwrap_err();
    assert_eq!(diags.len(), 50);
    let help = diags[49].help.as_deref().unwrap_or_default();
    assert!(help.ends_with("950 more errors are not shown"), "{help}");
}

#[test]
fn names_have_a_limit_and_long_lines_are_not_shown() {
    let name = "x".repeat(100_000);
    let text = format!("int a; int {name} = 1; void test(void) {{ nothing(); }}");
    let diags = compile(&[litmus(&text)], &no_includes, &["test"], &config(2, 64)).unwrap_err();
    let shown: Vec<String> = diags.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("error: a name of 100000 characters\n--> test.c:1:12\n"), "{}", shown[0]);
    assert!(shown.iter().all(|s| s.len() < 1_000), "{}", shown[0]);
    let fits = format!("int {0}; void test(void) {{ {0} = 1; }}", "x".repeat(255));
    assert!(compile(&[litmus(&fits)], &no_includes, &["test"], &config(2, 64)).is_ok());
}

#[test]
fn choices_of_one_step_have_a_limit() {
    let compiled = |body: &str| {
        let text = format!("int g; void test(void) {{ int i; {body} }}");
        compile(&[litmus(&text)], &no_includes, &["test"], &config(2, 64))
            .map_err(|diags| diags[0].to_string())
    };
    let choices = |n: usize| (0..n).map(|i| format!("int v{i} = any_of(2);\n")).collect::<String>();
    assert!(compiled(&choices(16)).is_ok());
    let many = compiled(&choices(17)).unwrap_err();
    assert!(many.contains("more than 65536 ways to come to line 17 from the access before"), "{many}");
    assert!(
        compiled(&format!("{}g = 1; {}", choices(16), choices(16).replace('v', "w"))).is_ok(),
        "an access between"
    );
    assert!(
        compiled("for (i = 0; i < 100; i++) if (any_of(9)) break;").is_ok(),
        "a loop's choices are steps of their own"
    );
    assert!(
        compiled(&format!("if (g) {{ {} }} else {{ {} }}", choices(16), choices(16))).is_ok(),
        "one of two"
    );
}
