//! Traces end to end: packed and plain, cut off and damaged, in memory and streamed.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use workloads::guest::{
    GuestAccess, GuestError, GuestSource, GuestSpec, LINES_PER_PAGE, Sharing, Trace, TraceError, TraceInput,
    TraceOptions, TraceSpec, builtin,
};

/// A directory of one test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the test");
        Scratch(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file for the test");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays in the build directory; that is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    compress_to_vec(text, CompressionLevel::Fastest)
}

/// A text of some 100 KB: `n` loads and stores with instructions between, over a few pages.
fn text(n: u64) -> Vec<u8> {
    let mut text = b"==7== Lackey, an example Valgrind tool\n".to_vec();
    for i in 0..n {
        for j in 0..i % 4 {
            writeln!(text, "I  {:08x},{}", 0x0400_0000 + 16 * i + j, 1 + j).expect("memory takes all");
        }
        let kind = ["L", "S", "M"][(i % 3) as usize];
        writeln!(text, " {kind} {:08x},8", 0x1f_fe00_0000 + i * 0x338 % 0x9_0000).expect("memory takes all");
    }
    text.extend(b"I  04000000,3\n==7== Exit code: 0\n");
    text
}

fn from_bytes(bytes: &[u8], options: TraceOptions) -> Result<Trace, TraceError> {
    let input = TraceInput::from_reader("test".to_owned(), Box::new(Cursor::new(bytes.to_vec())))?;
    Trace::from_input(input, options)
}

fn player(trace: &Trace) -> GuestSource {
    match trace {
        Trace::Compact(t) => GuestSource::Compact(workloads::guest::CompactCursor::new(t.clone(), 0)),
        Trace::Streamed(t) => {
            GuestSource::Streamed(Box::new(workloads::guest::StreamedCursor::new(t.clone(), 0)))
        }
    }
}

fn accesses(trace: &Trace, count: usize) -> Vec<GuestAccess> {
    let mut player = player(trace);
    (0..count).map(|_| player.next_access()).collect()
}

/// Line, write, instructions.
type Tuple = (u32, bool, u32);

fn one_pass(text: &str) -> Vec<Tuple> {
    let trace = from_bytes(text.as_bytes(), TraceOptions::default()).expect("a good trace");
    let count = usize::try_from(trace.stats().accesses).expect("few");
    accesses(&trace, count).iter().map(|a| (a.line, a.write, a.instructions)).collect()
}

#[test]
fn records_become_accesses_to_guest_lines() {
    let table: [(&str, &[Tuple]); 7] = [
        (" L 1040,8\n", &[(1, false, 0)]),
        ("I  10,1\nI  11,1\n S 1000,4\n L 2000,4\n", &[(0, true, 2), (64, false, 0)]),
        ("I  10,1\n M 1fc0,4\n", &[(63, false, 1), (63, true, 0)]),
        // Straddling a line, a page, and (modified) both lines twice.
        ("I  10,1\n L 103c,8\n", &[(0, false, 1), (1, false, 0)]),
        (" S 5ffc,8\n L 5000,1\n", &[(63, true, 0), (64, true, 0), (0, false, 0)]),
        (" M 107f,2\n", &[(1, false, 0), (2, false, 0), (1, true, 0), (2, true, 0)]),
        // Up to the border is one; two whole lines are two.
        (
            " L 1038,8\n L 1040,64\n L 1080,128\n",
            &[(0, false, 0), (1, false, 0), (2, false, 0), (3, false, 0)],
        ),
    ];
    for (text, want) in table {
        assert_eq!(one_pass(text), want, "{text:?}");
    }
}

#[test]
fn statistics_count_the_accesses_and_the_lines() {
    let text = "==1== x\nI  10,1\n L 103c,8\n S 2000,8\n M 2000,8\nodd\n L 9000,1\n";
    let trace = from_bytes(text.as_bytes(), TraceOptions { max_pages: 2, ..TraceOptions::default() });
    let stats = trace.expect("a good trace").stats().clone();
    assert_eq!((stats.accesses, stats.writes, stats.straddling), (6, 2, 1));
    assert_eq!((stats.pages_touched, stats.pages), (3, 2));
    assert_eq!((stats.lines.total(), stats.lines.malformed, stats.lines.noise), (7, 1, 1));
    assert_eq!(stats.lines.first_malformed.map(|m| (m.line, m.text)), Some((6, "odd".to_owned())));
}

#[test]
fn pages_beyond_the_limit_wrap() {
    let options = TraceOptions { max_pages: 2, ..TraceOptions::default() };
    let trace = from_bytes(b" L 1000,1\n L 2000,1\n L 3040,1\n L 2000,1\n", options).expect("a good trace");
    let lines: Vec<u32> = accesses(&trace, 4).iter().map(|a| a.line).collect();
    assert_eq!(lines, [0, 64, 1, 64]);
}

#[test]
fn gzip_and_zstd_are_read_as_the_plain_text() {
    let text = text(5000);
    let plain = from_bytes(&text, TraceOptions::default()).expect("plain");
    let (half, rest) = text.split_at(text.len() / 2);
    // A frame without content, as some tools write one first: its magic number, its length, its bytes.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9][..], &zstd(&text)].concat();
    let packed = [
        ("gzip", gzip(&text)),
        ("two gzip members", [gzip(half), gzip(rest)].concat()),
        ("zstd", zstd(&text)),
        ("two zstd frames", [zstd(half), zstd(rest)].concat()),
        ("a frame to skip", skipped),
    ];
    for (name, bytes) in packed {
        let trace = from_bytes(&bytes, TraceOptions::default()).expect(name);
        assert_eq!(trace.stats(), plain.stats(), "{name}");
        assert_eq!(accesses(&trace, 12_000), accesses(&plain, 12_000), "{name}");
    }
}

#[test]
fn a_stored_zstd_block_is_read() {
    let text = b" L 1040,8\n S 1040,8\n";
    // Magic, descriptor "one segment, size in one byte", size; a last raw block of that size.
    let size = u8::try_from(text.len()).expect("short");
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, size];
    frame.extend([size << 3 | 1, size >> 5, 0]);
    frame.extend(text);
    let trace = from_bytes(&frame, TraceOptions::default()).expect("a good frame");
    assert_eq!(trace.stats().accesses, 2);
}

#[test]
fn packed_data_cut_off_anywhere_is_an_error_that_says_so() {
    let text = text(2000);
    for (format, bytes) in [("gzip", gzip(&text)), ("zstd", zstd(&text))] {
        for keep in [6, 10, 30, bytes.len() / 2, bytes.len() - 9, bytes.len() - 5, bytes.len() - 1] {
            match from_bytes(&bytes[..keep], TraceOptions::default()) {
                Err(TraceError::Truncated { format: told, .. }) => assert_eq!(told, format),
                other => panic!("{format} cut to {keep}: {other:?}"),
            }
        }
    }
}

#[test]
fn damaged_data_is_an_error_that_says_so() {
    let text = text(2000);
    for bytes in [gzip(&text), zstd(&text)] {
        // A flipped bit of the checksum at the end, and one of its neighbours for the other format.
        for from_end in [2, 6] {
            let mut damaged = bytes.clone();
            let at = damaged.len() - from_end;
            damaged[at] ^= 0x10;
            let error = from_bytes(&damaged, TraceOptions::default()).expect_err("damaged");
            assert!(matches!(error, TraceError::Corrupt { .. } | TraceError::Truncated { .. }), "{error}");
        }
        let mut tail = bytes.clone();
        tail.extend(b"something else");
        let error = from_bytes(&tail, TraceOptions::default()).expect_err("what follows is no packed data");
        assert!(matches!(error, TraceError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn other_packings_are_named() {
    for (magic, name) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"BZh91AY", "bzip2")] {
        let error = from_bytes(magic, TraceOptions::default()).expect_err("not read");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_trace_without_accesses_is_an_error_that_says_how_to_make_one() {
    let table =
        [("", "0 lines"), ("==1== x\nI  10,1\n", "1 instructions"), ("hello\n", "line 1 is \"hello\"")];
    for (text, told) in table {
        let message = from_bytes(text.as_bytes(), TraceOptions::default()).expect_err("empty").to_string();
        assert!(message.contains(told) && message.contains("valgrind --tool=lackey"), "{message}");
    }
    let error = from_bytes(&gzip(b""), TraceOptions::default()).expect_err("empty");
    assert!(matches!(error, TraceError::Empty { .. }), "{error}");
}

#[test]
fn files_that_cannot_be_read_are_errors_with_their_path() {
    let scratch = Scratch::new("unreadable");
    let missing = scratch.0.join("missing.lackey");
    let message = Trace::load(&missing, TraceOptions::default()).expect_err("missing").to_string();
    assert!(message.contains("missing.lackey") && message.contains("check the name"), "{message}");
    let message = Trace::load(&scratch.0, TraceOptions::default()).expect_err("a directory").to_string();
    assert!(message.contains("unreadable") && message.contains("name a file in it"), "{message}");
}

#[test]
fn a_streamed_trace_plays_what_the_one_in_memory_plays() {
    let scratch = Scratch::new("streamed");
    let text = text(60_000);
    let held = from_bytes(&text, TraceOptions { max_pages: 50, ..TraceOptions::default() }).expect("good");
    let pass = usize::try_from(held.stats().accesses).expect("few");
    for (name, bytes) in [("t", text.clone()), ("t.gz", gzip(&text)), ("t.zst", zstd(&text))] {
        let path = scratch.file(name, &bytes);
        let options = TraceOptions { max_pages: 50, words_max: 1000 };
        let streamed = Trace::load(&path, options).expect("good");
        assert!(matches!(streamed, Trace::Streamed(_)));
        assert_eq!(streamed.stats(), held.stats());
        let (mut a, mut b) = (player(&held), player(&streamed));
        for i in 0..2 * pass + 10 {
            assert_eq!((a.next_access(), a.loops()), (b.next_access(), b.loops()), "{name}, access {i}");
        }
        assert_eq!(a.loops(), 2);
        assert_eq!(b.fault(), None);
    }
}

#[test]
fn a_streamed_trace_that_goes_away_is_a_fault_and_no_panic() {
    let scratch = Scratch::new("gone");
    let path = scratch.file("t", &text(1000));
    let trace = Trace::load(&path, TraceOptions { words_max: 10, ..TraceOptions::default() }).expect("good");
    let mut begun = player(&trace);
    begun.next_access();
    fs::remove_file(&path).expect("removable");
    let mut late = player(&trace);
    for _ in 0..10_000 {
        begun.next_access();
        late.next_access();
    }
    assert!(matches!(begun.fault(), Some(TraceError::Open { .. })));
    assert!(matches!(late.fault(), Some(TraceError::Open { .. })));
}

#[test]
fn input_that_cannot_be_read_twice_has_a_limit_that_the_message_tells() {
    let options = TraceOptions { words_max: 100, ..TraceOptions::default() };
    let message = from_bytes(&text(5000), options).expect_err("too long").to_string();
    assert!(message.contains("100 words") && message.contains("save it to a file"), "{message}");
}

#[test]
fn filling_equals_asking_one_by_one() {
    let trace = from_bytes(&text(100), TraceOptions::default()).expect("good");
    let (mut single, mut batch) = (player(&trace), player(&trace));
    let mut into = [GuestAccess::default(); 37];
    for _ in 0..20 {
        batch.fill(&mut into);
        for got in into {
            assert_eq!(got, single.next_access());
        }
        assert_eq!(batch.loops(), single.loops());
    }
}

#[test]
fn the_shipped_trace_is_what_the_document_says() {
    let [shipped] = builtin::BUILTIN_TRACES else { panic!("describe the other traces here, too") };
    let trace = builtin::load(shipped.name, TraceOptions::default()).expect("it ships");
    let stats = trace.stats();
    assert_eq!(stats.lines.loads + stats.lines.stores + stats.lines.modifies, 600_000);
    assert_eq!((stats.lines.malformed, stats.lines.noise), (0, 0));
    assert_eq!((stats.accesses, stats.writes, stats.straddling), (615_174, 183_489, 3791));
    assert_eq!((stats.pages_touched, stats.lines.instructions), (524, 1_559_236));
    assert!(shipped.packed.len() < 1 << 20);
    let document = include_str!("../../docs/TRACES.md");
    for told in ["418,227", "170,390", "11,383", "615,174", "183,489", "3,791", "1,559,236", "524"] {
        assert!(document.contains(told), "{told}");
    }
    let message = builtin::load("sqlite", TraceOptions::default()).expect_err("no such").to_string();
    assert!(message.contains("sqlite3-insert-select"), "{message}");
}

#[test]
fn vcpus_play_a_trace_in_pages_of_their_own_or_in_the_same() {
    let scratch = Scratch::new("vcpus");
    scratch.file("t.lackey", &text(100));
    for (sharing, apart) in [(Sharing::Private, 1), (Sharing::Shared, 0)] {
        let file = Some(PathBuf::from("t.lackey"));
        let spec = GuestSpec::Trace(TraceSpec { file, builtin: None, max_pages: 16, sharing });
        let guest = spec.load(&scratch.0, 3).expect("good");
        assert_eq!(guest.pages(), guest.pages_of_one() * (1 + 2 * apart));
        let mut sources = guest.sources(1, 0);
        let lines: Vec<u32> = sources.iter_mut().map(|s| s.next_access().line).collect();
        let step = apart * guest.pages_of_one() * LINES_PER_PAGE;
        assert_eq!(lines, [0, step, 2 * step].map(|line| line + lines[0]));
    }
}

#[test]
fn a_trace_needs_exactly_one_name() {
    for (file, builtin) in [(None, None), (Some(PathBuf::from("x")), Some("y".to_owned()))] {
        let spec = GuestSpec::Trace(TraceSpec { file, builtin, max_pages: 1, sharing: Sharing::Private });
        assert!(matches!(spec.load(Path::new("."), 1), Err(GuestError::TraceName { .. })));
    }
}
