//! The parser of lackey's text: tables of lines, and random bytes that must do no harm.

use proptest::prelude::*;
use workloads::guest::Malformed;
use workloads::guest::lackey::{LINE_KEPT, LackeyParser, LineCounts, Record, RecordKind, TEXT_KEPT};

fn parse(chunks: &[&[u8]]) -> (Vec<Record>, LineCounts) {
    let mut records = Vec::new();
    let mut parser = LackeyParser::new();
    for chunk in chunks {
        parser.feed(chunk, &mut |record| records.push(record));
    }
    parser.finish(&mut |record| records.push(record));
    (records, parser.counts().clone())
}

fn record(kind: RecordKind, address: u64, size: u32) -> Record {
    Record { kind, address, size }
}

#[test]
fn good_lines_are_read() {
    let table = [
        ("I  04000c20,3", record(RecordKind::Instruction, 0x0400_0c20, 3)),
        (" L 1ffeffe7e0,8", record(RecordKind::Load, 0x1f_feff_e7e0, 8)),
        (" S 1ffeffe7d8,8", record(RecordKind::Store, 0x1f_feff_e7d8, 8)),
        (" M 0421c7cc,4", record(RecordKind::Modify, 0x0421_c7cc, 4)),
        (" L 0421C7CC,4", record(RecordKind::Load, 0x0421_c7cc, 4)),
        (" L 0,1", record(RecordKind::Load, 0, 1)),
        (" S ffffffffffffffff,1", record(RecordKind::Store, u64::MAX, 1)),
        (" L 04000000,512", record(RecordKind::Load, 0x0400_0000, 512)),
        (" L 04000000,4096", record(RecordKind::Load, 0x0400_0000, 4096)),
        (" L 04000000,00008", record(RecordKind::Load, 0x0400_0000, 8)),
    ];
    for (line, want) in table {
        for end in ["", "\n", "\r\n"] {
            let text = format!("{line}{end}");
            let (records, counts) = parse(&[text.as_bytes()]);
            assert_eq!(records, [want], "{text:?}");
            assert_eq!((counts.total(), counts.malformed, counts.noise), (1, 0, 0), "{text:?}");
        }
    }
}

#[test]
fn malformed_lines_are_counted_and_the_first_is_kept() {
    let table = [
        "hello world",
        "L 04000c20,3",
        "I 04000c20,3",
        "I  04000c20",
        "I  04000c20,",
        "I  ,3",
        "I  04000c20,3 ",
        "I  04000c20,x",
        "I  04000c20,-1",
        "I  0x4000c20,3",
        " L 04000c20,0",
        " L 04000c20,4097",
        " L 04000c20,000008",
        " L 10000000000000000,1",
        " L ffffffffffffffff,2",
        " X 04000c20,3",
        "  L 04000c20,3",
        " L  04000c20,3",
        "\tL 04000c20,3",
        "loadedI  04000c20,3",
        "= ==12== x",
        "==",
        "====",
        "==x==",
        "==12",
        "==12--",
        "I",
        " L",
        " S ",
    ];
    for line in table {
        let text = format!("==1== x\nI  04000c20,3\n{line}\n L 04000c20,3\nodd too\n");
        let (records, counts) = parse(&[text.as_bytes()]);
        assert_eq!(records.len(), 2, "{line:?}");
        assert_eq!((counts.total(), counts.malformed, counts.noise), (5, 2, 1), "{line:?}");
        let text = line.trim_end().to_owned();
        assert_eq!(counts.first_malformed, Some(Malformed { line: 3, text }), "{line:?}");
    }
}

#[test]
fn valgrinds_own_lines_and_blank_ones_are_noise() {
    let table = [
        "==5162== Lackey, an example Valgrind tool",
        "==5162== ",
        "==1==",
        "--12-- warning",
        "**9** x",
        "",
        "  ",
    ];
    for line in table {
        let (records, counts) = parse(&[line.as_bytes(), b"\n"]);
        assert_eq!(records, []);
        assert_eq!((counts.total(), counts.noise), (1, 1), "{line:?}");
    }
}

#[test]
fn a_long_line_costs_no_memory_and_its_beginning_is_told() {
    let long = vec![b'x'; 10 * LINE_KEPT];
    let mut text = b" L 10,4\n".to_vec();
    for _ in 0..3 {
        text.extend(&long);
    }
    text.extend(b"\n S 20,4\n");
    let whole = parse(&[&text]);
    assert_eq!(whole.0.len(), 2);
    let malformed = whole.1.first_malformed.clone().expect("the long line");
    assert_eq!((malformed.line, malformed.text.len()), (2, TEXT_KEPT));
    let pieces: Vec<&[u8]> = text.chunks(7).collect();
    assert_eq!(parse(&pieces), whole);
}

/// Bytes of which many look like a trace.
fn lackey_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "I  [0-9a-f]{1,10},[0-9]{1,2}\r?\n".prop_map(String::into_bytes),
        " [LSM] [0-9a-f]{1,17},[0-9]{1,5}\n".prop_map(String::into_bytes),
        "==[0-9]{1,3}== [a-z ]{0,10}\n".prop_map(String::into_bytes),
        "[ILSM ,0-9a-f=\n\r-]{0,12}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
        (200usize..400).prop_map(|n| vec![b'='; n]),
        (200usize..400).prop_map(|n| vec![b' '; n]),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_accepted_and_every_line_is_counted_once(text in lackey_like()) {
        let (records, counts) = parse(&[&text]);
        let ends = text.iter().filter(|&&b| b == b'\n').count();
        let lines = ends + usize::from(text.last().is_some_and(|&b| b != b'\n'));
        prop_assert_eq!(counts.total(), lines as u64);
        prop_assert_eq!(counts.first_malformed.is_some(), counts.malformed > 0);
        let of_records = counts.instructions + counts.loads + counts.stores + counts.modifies;
        prop_assert_eq!(records.len() as u64, of_records);
    }

    #[test]
    fn how_the_text_is_cut_makes_no_difference(text in lackey_like(), piece in 1usize..50) {
        let pieces: Vec<&[u8]> = text.chunks(piece).collect();
        prop_assert_eq!(parse(&pieces), parse(&[&text]));
    }

    #[test]
    fn what_lackey_prints_is_read_back(
        kind in 0usize..4, address in any::<u64>(), size in 1u32..=512, piece in 1usize..9
    ) {
        let kinds = [
            (RecordKind::Instruction, "I "),
            (RecordKind::Load, " L"),
            (RecordKind::Store, " S"),
            (RecordKind::Modify, " M"),
        ];
        let (kind, letters) = kinds[kind];
        let address = address.min(u64::MAX - 512);
        let text = format!("{letters} {address:08x},{size}\n");
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
        prop_assert_eq!(parse(&pieces).0, vec![record(kind, address, size)]);
    }
}
