//! Synthetic guests: what they access, that they repeat, and how files describe them.

use std::path::Path;

use serde::Deserialize;
use workloads::guest::{GuestAccess, GuestError, GuestSource, GuestSpec, LINES_PER_PAGE};

#[derive(Deserialize)]
struct File {
    guest: GuestSpec,
}

fn spec(text: &str) -> GuestSpec {
    toml::from_str::<File>(&format!("guest.{text}")).map_err(|error| error.to_string()).expect(text).guest
}

fn sources(text: &str, vcpus: u32, seed: u64) -> Vec<GuestSource> {
    spec(text).load(Path::new("."), vcpus).expect(text).sources(seed, 0)
}

fn take(source: &mut GuestSource, count: usize) -> Vec<GuestAccess> {
    (0..count).map(|_| source.next_access()).collect()
}

const PATTERNS: [&str; 6] = [
    "uniform = { pages = 16 }",
    "zipf = { pages = 16, write_percent = 50 }",
    "stream = { pages = 16, stride_lines = 3, instructions = 7 }",
    "chase = { pages = 16 }",
    "ping_pong = { pages = 2, lines_per_page = 4 }",
    "trace = { builtin = \"sqlite3-insert-select\", max_pages = 16 }",
];

#[test]
fn the_same_seed_gives_the_same_guests_and_filling_is_asking() {
    for text in PATTERNS {
        let (mut a, mut b) = (sources(text, 3, 42), sources(text, 3, 42));
        for (a, b) in a.iter_mut().zip(&mut b) {
            let mut filled = vec![GuestAccess::default(); 5000];
            b.fill(&mut filled);
            assert_eq!(take(a, 5000), filled, "{text}");
            assert_eq!(a.loops(), b.loops(), "{text}");
            assert_eq!(a.fault(), None);
        }
    }
}

#[test]
fn every_vcpu_stays_in_its_own_pages_unless_they_share() {
    for text in PATTERNS {
        let guest = spec(text).load(Path::new("."), 3).expect(text);
        let shared = text.starts_with("ping_pong");
        let lines = guest.pages_of_one() * LINES_PER_PAGE;
        assert_eq!(guest.pages(), guest.pages_of_one() * if shared { 1 } else { 3 });
        for (vcpu, source) in guest.sources(1, 0).iter_mut().enumerate() {
            let first = if shared { 0 } else { u32::try_from(vcpu).expect("few") * lines };
            for access in take(source, 5000) {
                assert!((first..first + lines).contains(&access.line), "{text}: {access:?}");
            }
        }
    }
}

#[test]
fn other_seeds_and_other_vcpus_do_other_things() {
    for text in ["uniform = { pages = 16 }", "zipf = { pages = 16 }", "chase = { pages = 16 }"] {
        let text = text.replace(" }", ", write_percent = 50 }");
        let mut one = sources(&text, 2, 1);
        let first = take(&mut one[0], 100);
        assert_ne!(first, take(&mut sources(&text, 2, 2)[0], 100), "{text}");
        let own = LINES_PER_PAGE * 16;
        let second: Vec<GuestAccess> =
            take(&mut one[1], 100).into_iter().map(|a| GuestAccess { line: a.line - own, ..a }).collect();
        assert_ne!(first, second, "{text}");
    }
}

#[test]
fn writes_come_in_the_share_asked_for() {
    for pattern in ["uniform", "zipf", "stream", "chase", "ping_pong"] {
        for percent in [0u8, 1, 30, 100] {
            let text = format!("{pattern} = {{ pages = 8, write_percent = {percent} }}");
            let writes = take(&mut sources(&text, 1, 3)[0], 100_000).iter().filter(|a| a.write).count();
            let want = usize::from(percent) * 1000;
            assert!(writes.abs_diff(want) < 500, "{text}: {writes}");
            assert!(writes == want || !matches!(percent, 0 | 100), "{text}: {writes}");
        }
    }
}

#[test]
fn uniform_reaches_every_line_about_as_often() {
    let mut counts = [0u32; 128];
    for access in take(&mut sources("uniform = { pages = 2 }", 1, 1)[0], 128_000) {
        counts[access.line as usize] += 1;
    }
    assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
}

#[test]
fn zipf_prefers_few_pages_that_the_seed_chooses() {
    let hottest = |seed| {
        let mut counts = [0u32; 64];
        for access in take(&mut sources("zipf = { pages = 64, exponent_percent = 120 }", 1, seed)[0], 50_000)
        {
            counts[(access.line / LINES_PER_PAGE) as usize] += 1;
        }
        let most = counts.iter().max().copied().expect("64");
        assert!((14_000..18_000).contains(&most), "{counts:?}");
        counts.iter().position(|&n| n == most)
    };
    assert_ne!(hottest(1), hottest(2));
}

#[test]
fn stream_goes_through_its_lines_and_counts_its_rounds() {
    let mut source = sources("stream = { pages = 1, stride_lines = 3, instructions = 7 }", 1, 1).remove(0);
    let round: Vec<u32> = (0..64).step_by(3).collect();
    for loops in 0..3 {
        let accesses = take(&mut source, round.len());
        assert!(accesses.iter().map(|a| a.line).eq(round.iter().copied()));
        assert!(accesses.iter().all(|a| a.instructions == 7));
        assert_eq!(source.loops(), loops);
    }
}

#[test]
fn chase_visits_every_line_once_a_round() {
    let mut source = sources("chase = { pages = 4 }", 1, 1).remove(0);
    let first: Vec<u32> = take(&mut source, 256).iter().map(|a| a.line).collect();
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..256));
    assert_eq!(source.loops(), 0);
    assert!(take(&mut source, 256).iter().map(|a| a.line).eq(first));
    assert_eq!(source.loops(), 1);
}

#[test]
fn ping_pong_takes_its_lines_in_turn_for_all_vcpus() {
    for source in &mut sources("ping_pong = { pages = 2, lines_per_page = 2 }", 2, 1) {
        let lines: Vec<u32> = take(source, 8).iter().map(|a| a.line).collect();
        assert_eq!(lines, [0, 1, 64, 65, 0, 1, 64, 65]);
    }
}

#[test]
fn golden_accesses_of_each_pattern() {
    let sum = |source: &mut GuestSource| {
        take(source, 100_000).iter().fold(0u64, |sum, a| {
            let word = u64::from(a.line) << 32 | u64::from(a.instructions) << 1 | u64::from(a.write);
            (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let sums: Vec<u64> = PATTERNS.iter().map(|text| sum(&mut sources(text, 2, 7)[1])).collect();
    assert_eq!(
        sums,
        [
            11_027_031_544_552_164_494,
            9_500_328_650_911_303_488,
            12_438_646_172_562_658_289,
            14_939_717_417_657_632_929,
            15_962_727_363_245_981_044,
            16_474_649_710_641_056_958
        ]
    );
}

#[test]
fn a_description_survives_being_written_and_read() {
    for text in PATTERNS {
        let spec = spec(text);
        #[derive(serde::Serialize)]
        struct Out<'a> {
            guest: &'a GuestSpec,
        }
        let written = toml::to_string(&Out { guest: &spec }).expect("writable");
        assert_eq!(toml::from_str::<File>(&written).map_err(|e| e.to_string()).expect(&written).guest, spec);
    }
}

#[test]
fn unknown_words_and_numbers_out_of_range_are_refused() {
    for text in [
        "uniform = { pages = 1, page = 2 }",
        "random = { pages = 1 }",
        "uniform = { pages = -1 }",
        "zipf = {}",
    ] {
        assert!(toml::from_str::<File>(&format!("guest.{text}")).is_err(), "{text}");
    }
    let table = [
        ("uniform = { pages = 0 }", "pages = 0"),
        ("uniform = { pages = 4194305 }", "4194304"),
        ("chase = { pages = 65537 }", "65536"),
        ("uniform = { pages = 1, write_percent = 101 }", "write_percent = 101"),
        ("stream = { pages = 1, stride_lines = 0 }", "stride_lines"),
        ("ping_pong = { lines_per_page = 65 }", "1 to 64"),
        ("zipf = { pages = 1, exponent_percent = 401 }", "0 to 400"),
        ("trace = { builtin = \"x\", max_pages = 0 }", "max_pages"),
        ("uniform = { pages = 1, instructions = 1000001 }", "1000000"),
    ];
    for (text, told) in table {
        let message = spec(text).load(Path::new("."), 1).expect_err(text).to_string();
        assert!(message.contains(told), "{message}");
    }
    let error = spec("uniform = { pages = 4194304 }").load(Path::new("."), 17).expect_err("too much");
    assert!(matches!(error, GuestError::Memory { .. }) && error.to_string().contains("shared"), "{error}");
    assert!(spec("uniform = { pages = 4194304 }").load(Path::new("."), 16).is_ok());
}

#[test]
fn the_descriptions_in_the_document_are_accepted() {
    let document = include_str!("../../docs/TRACES.md");
    let blocks: Vec<&str> =
        document.split("```toml\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let file: Result<File, _> = toml::from_str(block);
        assert!(file.is_ok(), "{block}: {:?}", file.err());
    }
}
