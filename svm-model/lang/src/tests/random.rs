//! Properties over random texts.

use proptest::prelude::*;

use super::generate::{Tape, ast, program};
use super::mock::Mock;
use super::{config, litmus};
use crate::compile::{Effort, compile_with};
use crate::{Ast, Code, no_includes, parse};

/// As many cases as `PROPTEST_CASES` asks for, or what a test run has time for.
fn cases() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { 400 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2000, ..asked }
}

fn tape(len: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..len)
}

fn build(text: &str, effort: Effort) -> Result<Code, String> {
    compile_with(&[litmus(text)], &no_includes, &["test"], &config(3, 2), effort)
        .map_err(|diags| diags.iter().map(|d| format!("{d}\n")).collect())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_printed_tree_parses_to_itself(bytes in tape(200)) {
        let tree = ast(&mut Tape::new(&bytes));
        let text = tree.to_string();
        match parse(&litmus(&text)) {
            Ok(again) => prop_assert_eq!(&again, &tree, "{}", text),
            Err(diags) => prop_assert!(false, "{}\n{}", text, diags[0]),
        }
    }

    #[test]
    fn optimising_changes_no_step(bytes in tape(160), choices in proptest::collection::vec(0..3i64, 6)) {
        let text = program(&mut Tape::new(&bytes));
        let config = config(3, 2);
        let plain = build(&text, Effort { optimise: false, share_registers: true });
        let Ok(plain) = plain else {
            // Too many registers at a time without the optimiser; anything else is an error of the generator.
            let error = plain.err().unwrap_or_default();
            prop_assert!(error.contains("registers"), "{}\n{}", text, error);
            return Ok(());
        };
        let fast = build(&text, Effort::FULL);
        prop_assert!(fast.is_ok(), "{}\n{}", text, fast.err().unwrap_or_default());
        let fast = fast.expect("checked");
        let a = Mock::new(&plain, &config).choices(&choices).run(&plain.entries[0], &[]);
        let b = Mock::new(&fast, &config).choices(&choices).run(&fast.entries[0], &[]);
        prop_assert_eq!(a, b, "{}\n{}\n{}", text, plain.listing(), fast.listing());
    }

    #[test]
    fn sharing_registers_clobbers_nothing(bytes in tape(60), choices in proptest::collection::vec(0..3i64, 6)) {
        let text = program(&mut Tape::new(&bytes));
        let config = config(3, 2);
        let apart = build(&text, Effort { optimise: true, share_registers: false });
        let Ok(apart) = apart else { return Ok(()) };
        let shared = build(&text, Effort::FULL).map_err(TestCaseError::fail)?;
        let a = Mock::new(&apart, &config).choices(&choices).run(&apart.entries[0], &[]);
        let b = Mock::new(&shared, &config).choices(&choices).run(&shared.entries[0], &[]);
        prop_assert_eq!(a, b, "{}\n{}\n{}", text, apart.listing(), shared.listing());
    }

    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC{0,80}") {
        let _ = build(&text, Effort::FULL);
    }

    #[test]
    fn no_sequence_of_words_makes_the_compiler_panic(bytes in tape(80)) {
        let words = [
            "int", "x", "=", "(", ")", "{", "}", ";", "struct", "kvm", "*", "->", "if", "else", "while", "1", "0x",
            "#define", "\n", "enum", "for", "switch", "case", ":", "goto", "&", "&&", "cpumask_t", "void", "test",
            "guard", "mutex", "static", ",", "-", "!", "[", "]", "?", "return", "NULL", "for_each_cpu", "DEFINE_MUTEX",
            "DEFINE_PER_CPU", "unsigned", "/*", "*/", "//", "\"", "kvm_for_each_vcpu", "break", "+=", "++",
        ];
        let text: Vec<_> = bytes.iter().map(|b| words[usize::from(*b) % words.len()]).collect();
        let text = text.join(" ");
        if let Err(diags) = compile_with(&[litmus(&text)], &no_includes, &["test"], &config(3, 2), Effort::FULL) {
            for diag in diags {
                let _ = diag.to_string();
            }
        }
    }

    #[test]
    fn no_damage_makes_the_compiler_panic(bytes in tape(120), cut in any::<(u16, u16, u8)>()) {
        let text = program(&mut Tape::new(&bytes)) + &super::texts::kernel();
        let place = |n: u16| text.char_indices().nth(usize::from(n) % text.len()).map_or(0, |(i, _)| i);
        let (a, b) = (place(cut.0), place(cut.1));
        let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 40));
        let b = (b..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        let swap = [";", "}", "{", "(", "x", "goto", "*", "\n#", "for_each_cpu(", "test()"];
        let damaged = format!("{}{}{}", &text[..a], swap[usize::from(cut.2) % swap.len()], &text[b..]);
        if let Err(diags) = compile_with(&[litmus(&damaged)], &no_includes, &["test"], &config(3, 2), Effort::FULL) {
            for diag in diags {
                prop_assert!(!diag.to_string().is_empty());
                prop_assert!(diag.line > 0 || diag.message.contains("no function"), "{}", diag);
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = |open: &str, close: &str, n: usize| {
        format!("void test(void) {{ {}{}; }}", open.repeat(n), close.repeat(n))
    };
    let mut texts = vec![
        deep("(", ")", 100_000),
        deep("{", "}", 100_000),
        deep("if (1) ", "", 100_000),
        deep("x = ", "", 100_000),
        deep("!", "", 100_000),
        deep("- ", "", 100_000),
        deep("f(", ")", 100_000),
        deep("a ? b : ", "", 100_000),
        deep("a[", "]", 100_000),
        format!("void test(void) {{ {}1; }}", "1 + ".repeat(100_000)),
        format!("void test(void) {{ a{}; }}", "->b".repeat(100_000)),
        format!("void test(void) {{ if (1) ; {} }}", "else if (1) ;".repeat(30_000)),
        format!("int x = {}1;", "(int)".repeat(100_000)),
        "{".repeat(100_000),
        "(".repeat(100_000),
    ];
    let mut calls = String::from("int g; static int f0(int n) { return n + g; }\n");
    for i in 1..200 {
        calls += &format!("static int f{i}(int n) {{ return f{}(f{}(n)) + 1; }}\n", i - 1, i - 1);
    }
    texts.push(format!("{calls}void test(void) {{ g = f199(1); }}"));
    let mut chain = String::from("static void g0(void) { }\n");
    for i in 1..2000 {
        chain += &format!("static void g{i}(void) {{ {{ {{ {{ g{}(); }} }} }} }}\n", i - 1);
    }
    texts.push(format!("{chain}void test(void) {{ g1999(); }}"));
    for text in texts {
        let result = build(&text, Effort::FULL);
        let start: String = text.chars().take(60).collect();
        let error = result.err().unwrap_or_else(|| panic!("{start} compiles"));
        let told = ["too deeply", "too long", "too large", "unexpected", "never closed"]
            .iter()
            .any(|m| error.contains(m));
        assert!(told, "{start}: {error}");
    }
}

#[test]
fn a_tree_can_be_printed_again_and_again() {
    let first: Ast = parse(&litmus(&super::texts::kernel())).expect("the kernel parses");
    let again = parse(&litmus(&first.to_string())).expect("what was printed parses");
    assert_eq!(first, again);
    assert_eq!(first.to_string(), again.to_string());
}
