//! Exchanges with the kernel as text: written down, and played back.
//!
//! A line is a call, an arrow and the answer: `sev 0 LAUNCH_START policy=0x1 -> ok handle=3 took=81000`, or
//! `create-vm sev -> EINVAL`, or `sev 0 INIT2 -> EIO firmware=0x0f`. `#` begins a comment. `repeat N` before a line
//! stands for N of it.

use super::{Answer, Call, Kernel, Kind, Refusal, errno_from, errno_name};

/// Names of numbers that an answer may give.
const NAMES: [&str; 5] = ["types", "vm", "handle", "state", "exit"];

/// An answer or a refusal, as a line has it after the arrow.
fn said(result: &Result<Answer, Refusal>) -> String {
    match result {
        Ok(answer) => {
            let gave: String = answer.gave.iter().map(|(key, n)| format!(" {key}={n:#x}")).collect();
            format!("ok{gave} took={}", answer.took)
        }
        Err(refusal) => {
            let firmware = refusal.firmware.map_or(String::new(), |code| format!(" firmware={code:#04x}"));
            format!("{}{firmware}", errno_name(refusal.errno))
        }
    }
}

/// A kernel whose exchange is written down.
#[derive(Debug)]
pub struct Recorded<'a, K> {
    kernel: &'a mut K,
    /// The exchange so far.
    pub text: String,
}

impl<'a, K: Kernel> Recorded<'a, K> {
    /// With a first line that says where it was recorded.
    pub fn new(kernel: &'a mut K, title: &str) -> Recorded<'a, K> {
        Recorded { kernel, text: format!("# recorded: {title}\n") }
    }
}

impl<K: Kernel> Kernel for Recorded<'_, K> {
    fn call(&mut self, call: Call) -> Result<Answer, Refusal> {
        let result = self.kernel.call(call);
        self.text.push_str(&format!("{call} -> {}\n", said(&result)));
        result
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    number: usize,
    left: usize,
    call: String,
    answer: Result<Answer, (i32, Option<u32>)>,
}

/// A kernel that answers from a text, and only what the text says, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Played {
    lines: Vec<Line>,
    next: usize,
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn answer(text: &str) -> Result<Result<Answer, (i32, Option<u32>)>, String> {
    let mut words = text.split_whitespace();
    let first = words.next().ok_or("an answer is missing after ->")?;
    let mut answer = Answer::default();
    let mut firmware = None;
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: expected NAME=NUMBER"))?;
        let value = number(value).ok_or_else(|| format!("{word}: not a number"))?;
        if key == "took" {
            answer.took = value;
        } else if key == "firmware" {
            firmware = Some(u32::try_from(value).map_err(|_| format!("{word}: too large"))?);
        } else {
            let key = NAMES.iter().find(|n| **n == key);
            let key = key.ok_or_else(|| format!("{word}: known are took, firmware, {}", NAMES.join(", ")))?;
            answer.gave.push((key, value));
        }
    }
    if first == "ok" {
        return Ok(Ok(answer));
    }
    let errno = errno_from(first).ok_or_else(|| format!("{first}: expected ok or an error as EINVAL"))?;
    Ok(Err((errno, firmware)))
}

impl Played {
    /// Reads an exchange.
    ///
    /// # Errors
    /// Names the line.
    pub fn parse(text: &str) -> Result<Played, String> {
        let mut lines = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |why: String| format!("line {}: {why}", n + 1);
            let (left, line) = match line.strip_prefix("repeat ") {
                None => (1, line),
                Some(rest) => {
                    let (times, rest) =
                        rest.split_once(' ').ok_or_else(|| wrong("repeat N CALL -> ANSWER".to_owned()))?;
                    (times.parse().map_err(|e| wrong(format!("{times}: {e}")))?, rest)
                }
            };
            let (call, said) =
                line.split_once("->").ok_or_else(|| wrong("expected CALL -> ANSWER".to_owned()))?;
            let answer = answer(said).map_err(wrong)?;
            lines.push(Line { number: n + 1, left, call: call.trim().to_owned(), answer });
        }
        Ok(Played { lines, next: 0 })
    }

    /// What of the exchange was not asked for.
    #[must_use]
    pub fn left(&self) -> Vec<&str> {
        self.lines[self.next..].iter().map(|l| l.call.as_str()).collect()
    }
}

impl Kernel for Played {
    fn call(&mut self, call: Call) -> Result<Answer, Refusal> {
        let asked = call.to_string();
        let refusal = |errno, firmware, why: String| Refusal { call: asked.clone(), errno, firmware, why };
        let Some(line) = self.lines.get_mut(self.next) else {
            return Err(refusal(0, None, "the exchange that is played back ends here".to_owned()));
        };
        if line.call != asked {
            let why = format!("the exchange that is played back has, in line {}: {}", line.number, line.call);
            return Err(refusal(0, None, why));
        }
        let answer = line.answer.clone();
        line.left = line.left.saturating_sub(1);
        self.next += usize::from(line.left == 0);
        answer.map_err(|(errno, firmware)| refusal(errno, firmware, String::new()))
    }
}

/// An exchange that is played back in the tests: written from the documentation, not recorded on hardware.
#[must_use]
pub fn documented(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => include_str!("exchange/plain.txt"),
        Kind::Sev => include_str!("exchange/sev.txt"),
        Kind::SevEs => include_str!("exchange/sev-es.txt"),
        Kind::SevSnp => include_str!("exchange/sev-snp.txt"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::launch;
    use super::*;

    #[test]
    fn every_kind_is_launched_as_the_documentation_says() {
        for kind in Kind::ALL {
            let mut kernel = Played::parse(documented(kind)).unwrap();
            let launched = launch(&mut kernel, kind).unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
            assert_eq!(launched.vm, 0);
            assert!(launched.steps.iter().all(|(_, took)| *took > 0), "{launched:?}");
        }
    }

    #[test]
    fn what_the_firmware_refuses_is_told_by_name_and_the_vm_is_closed() {
        let text = "vm-types -> ok types=0x1d\ncreate-vm sev -> ok vm=0\nsev 0 INIT2 -> EIO firmware=0x0f\nclose 0 -> ok";
        let mut kernel = Played::parse(text).unwrap();
        let refusal = launch(&mut kernel, Kind::Sev).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "sev 0 INIT2: EIO (the firmware refused), firmware error 0x0f DFFLUSH_REQUIRED"
        );
        assert!(kernel.left().is_empty());
    }

    #[test]
    fn an_old_kernel_is_asked_in_the_old_way() {
        let text =
            "vm-types -> ok types=1\ncreate-vm plain -> ok vm=0\nsev 0 ES_INIT -> ENOTTY\nclose 0 -> ok";
        let mut kernel = Played::parse(text).unwrap();
        assert!(
            launch(&mut kernel, Kind::SevEs)
                .unwrap_err()
                .to_string()
                .contains("ENOTTY (this KVM knows no SEV)")
        );
        assert!(kernel.left().is_empty());
    }

    #[test]
    fn a_call_out_of_order_is_no_answer() {
        let mut kernel = Played::parse("# nothing\nrepeat 2 run 0 -> ok exit=0 took=5").unwrap();
        let other = kernel.call(Call::Run(1)).unwrap_err().to_string();
        assert_eq!(other, "run 1: the exchange that is played back has, in line 2: run 0");
        assert_eq!(kernel.call(Call::Run(0)).unwrap().took, 5);
        assert_eq!(kernel.left(), ["run 0"]);
        assert_eq!(kernel.call(Call::Run(0)).unwrap().number("exit"), 0);
        assert!(kernel.call(Call::Run(0)).unwrap_err().to_string().contains("ends here"));
    }

    #[test]
    fn bad_exchanges_name_their_line() {
        for (text, said) in [
            ("run 0", "line 1: expected CALL -> ANSWER"),
            ("\nrun 0 ->", "line 2: an answer is missing"),
            ("run 0 -> maybe", "maybe: expected ok or an error"),
            ("run 0 -> ok exit", "exit: expected NAME=NUMBER"),
            ("run 0 -> ok exit=x", "exit=x: not a number"),
            ("run 0 -> ok door=1", "door=1: known are took"),
            ("repeat x run 0 -> ok", "line 1: x:"),
            ("repeat 5", "line 1: repeat N"),
        ] {
            let error = Played::parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_recorded_can_be_played() {
        let mut kernel = Played::parse(documented(Kind::Sev)).unwrap();
        let mut recorded = Recorded::new(&mut kernel, "a test");
        let first = launch(&mut recorded, Kind::Sev).unwrap();
        let text = recorded.text;
        assert!(text.starts_with("# recorded: a test\nvm-types -> ok types=0x"), "{text}");
        assert!(
            text.contains(
                "\nsev 0 GUEST_STATUS -> ok handle=0x1 state=0x3 took=400000\nrun 0 -> ok exit=0x0"
            ),
            "{text}"
        );
        let mut again = Played::parse(&text).unwrap();
        assert_eq!(launch(&mut again, Kind::Sev).unwrap(), first);
        assert!(again.left().is_empty());
    }
}
