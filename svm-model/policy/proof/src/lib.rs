//! Links the policy core without `std` and without an allocator: it fails to build as soon as either is used.
#![no_std]

use sim_state::{Packed, Position, SlotId, Store};
use svm_policy::{Answer, Context, Lock, LockEvent, Op, Outcome, Place, Platform, Prim, REGS, Shared, Window, step};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

struct Bare<'a>(Packed<'a>);

impl Platform for Bare<'_> {
    fn load(&mut self, place: Place, _: i64, _: i64) -> i64 {
        self.0.get(SlotId(u32::from(place.var.0)))
    }
    fn store(&mut self, place: Place, _: i64, _: i64, value: i64) {
        self.0.set(SlotId(u32::from(place.var.0)), value);
    }
    fn slot(&self, place: Place, _: i64, _: i64) -> SlotId {
        SlotId(u32::from(place.var.0))
    }
    fn holder(&self) -> i64 {
        1
    }
    fn lock_event(&mut self, _: Lock, _: LockEvent) {}
    fn waits_in_vain(&self, _: i64) -> bool {
        false
    }
    fn this_cpu(&self) -> i64 {
        0
    }
    fn vm_of(&self, _: i64) -> i64 {
        0
    }
    fn siblings(&self, _: Shared, _: i64, _: i64) -> i64 {
        1
    }
    fn pcpus(&self) -> i64 {
        1
    }
    fn word_bits(&self) -> i64 {
        64
    }
    fn window(&mut self, _: Window) {}
    fn choose(&mut self, _: i64) -> i64 {
        0
    }
    fn primitive(&mut self, _: Prim, _: [i64; 4], _: &[i64; REGS]) -> Answer {
        Answer::Done(0)
    }
}

/// Steps a program that the caller owns; the linker needs everything the core stands on.
#[unsafe(no_mangle)]
pub extern "C" fn prove(word: u64) -> i64 {
    let mut words = [word];
    let layout = [Position { word: 0, shift: 0, width: 8, low: 0 }];
    let mut context = Context { pc: 0, regs: [0; REGS] };
    let mut bare = Bare(Packed { words: &mut words, layout: &layout });
    match step(&[Op::Halt], &mut context, &mut bare) {
        Outcome::Ran { .. } => i64::from(sev_arch::Tag::HOST.0),
        Outcome::Blocked { .. } | Outcome::Runaway { .. } => -1,
    }
}
