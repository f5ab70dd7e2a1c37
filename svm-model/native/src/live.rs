//! A policy at work: real guests whose threads move, marks at their entries, write-backs as the program asks for them.
//!
//! *Held*: one thread moves and runs at a time and all stand still during a reclaim, so that it is known where each VM ran,
//! from the kernel's own count of `kvm_entry`; what the policy flushes is compared with that, and with what the stepper
//! says that its program asks for. *Moving*: threads run and move while several flushers reclaim; what is held against
//! the policy is one rule: a pCPU where the VM was entered before the reclaim has written back since, when the reclaim
//! is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::entries::Counter;
use crate::guest::Guest;
use crate::helper::{Helper, Instruction, Reclaim};
use crate::os::{self, CpuSet, Pinned};
use crate::program::{Program, Shape};
use crate::stats::{Random, Samples};
use crate::stepper::{Actor, Delivery, Flush, Host};

/// Why the notifier is called, as MMU notifiers number it: memory is given back.
pub const MMU_NOTIFY_CLEAR: u32 = 1;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// VMs.
    pub vms: u16,
    /// vCPUs of each.
    pub vcpus: u16,
    /// Reclaims while all stand still.
    pub held: u32,
    /// Moves of a thread between two of them.
    pub moves: u32,
    /// Reclaims while all run.
    pub moving: u32,
    /// Threads that reclaim then.
    pub flushers: u16,
    /// Lines that a guest dirties in each run.
    pub lines: usize,
    /// Of where threads move.
    pub seed: u64,
}

/// A reclaim while all stood still.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Whose memory.
    pub vm: u16,
    /// pCPUs on which the VM was ever entered, by the kernel's counters.
    pub entered: Vec<usize>,
    /// The same by the module's probe.
    pub probed: Vec<usize>,
    /// pCPUs that the policy called.
    pub asked: Vec<usize>,
    /// pCPUs that executed a write-back for it.
    pub flushed: Vec<usize>,
    /// What they executed; NOP if nothing.
    pub instruction: Instruction,
    /// What the program asks for, by the stepper; nothing if it came to something that it cannot do.
    pub predicted: Option<Vec<usize>>,
    /// Whether the program asks for WBNOINVD.
    pub keeps: bool,
    /// pCPUs where the VM was entered and nothing was written back since.
    pub missed: Vec<usize>,
    /// Write-backs that were not executed, since one reclaim asked for too many.
    pub refused: u32,
    /// Cycles of the TSC from the call of the policy to its return.
    pub cycles: u64,
}

/// What the reclaims came to while all ran.
#[derive(Clone, Debug, Default)]
pub struct Moving {
    /// How many.
    pub reclaims: u64,
    /// How many of them missed a pCPU.
    pub missed: u64,
    /// pCPUs that executed a write-back, over all reclaims.
    pub flushes: u64,
    /// pCPUs that were called and did not execute one, over all reclaims.
    pub unanswered: u64,
    /// Write-backs that were refused, since one reclaim asked for too many.
    pub refused: u64,
    /// Threads moved.
    pub moves: u64,
    /// Entries of guests, by the module's probe.
    pub entries: u64,
    /// Cycles of each reclaim.
    pub cycles: Samples,
    /// Cycles of each write-back.
    pub each: Samples,
}

/// What a policy came to.
#[derive(Clone, Debug)]
pub struct Live {
    /// The reclaims while all stood still.
    pub held: Vec<Held>,
    /// Those while all ran.
    pub moving: Moving,
    /// Entries by the kernel's counters, and by the module's probe.
    pub entries: (u64, u64),
    /// Whether everything that was planned was done.
    pub complete: bool,
}

/// What a vCPU's thread is told.
enum Order {
    /// Run the guest once.
    Once,
    /// Run it until the flag is taken away.
    On,
    End,
}

/// A vCPU's thread, from outside.
struct Vcpu {
    vm: u16,
    thread: i32,
    orders: Sender<Order>,
    done: Receiver<Result<(), String>>,
    counters: Vec<(usize, Counter)>,
}

impl Vcpu {
    fn tell(&self, order: Order) -> Result<(), String> {
        self.orders.send(order).map_err(|_| "a vCPU's thread died".to_owned())
    }

    fn wait(&self) -> Result<(), String> {
        self.done
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| "a vCPU's thread does not answer".to_owned())?
    }

    fn move_to(&self, pcpu: usize) -> Result<(), String> {
        os::set_affinity_of(self.thread, &CpuSet::one(pcpu))
            .map_err(|e| format!("sched_setaffinity of a vCPU's thread to pCPU {pcpu}: {e}"))
    }

    /// The kernel's counts so far, by pCPU.
    fn entries(&self) -> Result<Vec<(usize, u64)>, String> {
        let read = |(pcpu, c): &(usize, Counter)| c.read().map(|n| (*pcpu, n));
        self.counters.iter().map(read).collect::<Result<_, _>>().map_err(|e| format!("a perf counter: {e}"))
    }
}

/// What `EDEADLK` of the module says.
const ENDED: &str = "a loop of the policy's text did not end by itself, and was ended (after 5 s, with interrupts or preemption off after \
                     the module's stall_limit_us): what the policy did then means nothing";

/// Runs a policy that is compiled into the loaded module. `shape` is this host's, with the plan's VMs and vCPUs.
///
/// # Errors
/// What this host cannot do, or what stopped.
pub fn run(
    helper: &Helper,
    number: u32,
    program: &Program,
    shape: &Shape,
    plan: &Plan,
    stop: &AtomicBool,
) -> Result<Live, String> {
    let pcpus = os::affinity().map_err(|e| format!("sched_getaffinity: {e}"))?.members();
    helper.start(number, u32::from(plan.vms), &shape.llc).map_err(|e| match e.raw_os_error() {
        Some(libc::EBUSY) => "another process runs a policy, or flushes, through the module".to_owned(),
        Some(libc::ENODEV) => {
            "KVM's tracepoint kvm_entry is not there: load kvm_amd (or this KVM has none)".to_owned()
        }
        Some(libc::EDEADLK) => ENDED.to_owned(),
        _ => format!("the module does not start the policy: {e}"),
    })?;
    let running = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut vcpus = Vec::new();
        for (index, vm) in (0u32..).zip(&shape.vcpu_vm) {
            let (orders, inbox) = channel();
            let (outbox, done) = channel();
            let (tell_thread, thread) = channel();
            let first = pcpus[index as usize % pcpus.len()];
            let (vm, running) = (*vm, &running);
            scope.spawn(move || {
                let made =
                    be_vcpu(helper, vm, index, first, plan.lines, &inbox, &outbox, running, &tell_thread);
                if let Err(why) = made {
                    drop(outbox.send(Err(why)));
                }
            });
            let thread =
                thread.recv().map_err(|_| done.recv().ok().and_then(Result::err).unwrap_or_default())?;
            let counters = pcpus.iter().map(|pcpu| {
                Counter::tracepoint("kvm/kvm_entry", thread, *pcpu).map(|c| (*pcpu, c)).map_err(|e| {
                    format!(
                        "the kernel's counters of kvm_entry: {e}; is tracefs mounted on /sys/kernel/tracing?"
                    )
                })
            });
            let counters = counters.collect::<Result<Vec<_>, _>>()?;
            vcpus.push((Vcpu { vm, thread, orders, done, counters }, first));
        }
        let made = work(helper, program, shape, plan, stop, &pcpus, &vcpus, &running);
        running.store(false, Ordering::Release);
        for (vcpu, _) in &vcpus {
            drop(vcpu.tell(Order::End));
        }
        made
    })
}

/// A vCPU's thread.
#[expect(clippy::too_many_arguments, reason = "a thread's whole world, handed over once")]
fn be_vcpu(
    helper: &Helper,
    vm: u16,
    vcpu: u32,
    first: usize,
    lines: usize,
    inbox: &Receiver<Order>,
    outbox: &Sender<Result<(), String>>,
    running: &AtomicBool,
    tell_thread: &Sender<i32>,
) -> Result<(), String> {
    let _pinned = Pinned::to(first).map_err(|e| format!("sched_setaffinity to pCPU {first}: {e}"))?;
    let mut guest = Guest::new(&crate::vm::open()?, lines)?;
    guest.set_lines(lines)?;
    helper.bind(u32::from(vm), vcpu).map_err(|e| format!("the module does not take the thread: {e}"))?;
    if tell_thread.send(os::thread_id()).is_err() {
        return Ok(());
    }
    while let Ok(order) = inbox.recv() {
        let ran = match order {
            Order::End => break,
            Order::Once => guest.run(),
            Order::On => {
                let mut ran = Ok(());
                while ran.is_ok() && running.load(Ordering::Acquire) {
                    ran = guest.run();
                }
                ran
            }
        };
        if outbox.send(ran).is_err() {
            break;
        }
    }
    helper.unbind().map_err(|e| format!("the module does not let the thread go: {e}"))
}

/// The same program, run by the stepper for what the threads did.
struct Prediction<'h, 'p> {
    host: &'h Host<'p>,
    program: &'p Program,
}

impl Prediction<'_, '_> {
    fn call(&self, actor: &mut Actor<'_, '_>, function: &str, args: &[i64]) {
        if let Some(entry) = self.program.entry(function) {
            actor.call(entry, args);
        }
    }

    /// A vCPU was loaded on a pCPU, entered its guest if it says so, and was taken off again.
    fn visit(&self, vcpu: usize, pcpu: usize, enters: bool) {
        let (v, p) = (i64::try_from(vcpu).unwrap_or(0), i64::try_from(pcpu).unwrap_or(0));
        let mut actor = self.host.actor(pcpu, u16::try_from(vcpu).unwrap_or(0));
        self.call(&mut actor, "vcpu_sched_in", &[v]);
        if enters {
            self.call(&mut actor, "pre_sev_run", &[v, p]);
        }
        self.call(&mut actor, "vcpu_sched_out", &[v]);
    }

    /// What a reclaim asks for; nothing if the program did what it must not.
    fn reclaim(&self, vm: u16, pcpu: usize) -> Option<Vec<Flush>> {
        let mut actor = self.host.actor(pcpu, u16::MAX);
        self.call(&mut actor, "sev_writeback_caches", &[i64::from(vm)]);
        actor.take_wrong().is_empty().then(|| actor.take_flushes())
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller, which has taken these apart")]
fn work(
    helper: &Helper,
    program: &Program,
    shape: &Shape,
    plan: &Plan,
    stop: &AtomicBool,
    pcpus: &[usize],
    vcpus: &[(Vcpu, usize)],
    running: &AtomicBool,
) -> Result<Live, String> {
    let host = Host::new(program, shape, Delivery::Inline);
    let prediction = Prediction { host: &host, program };
    for vm in 0..plan.vms {
        let mut actor = host.actor(pcpus[0], u16::MAX);
        prediction.call(&mut actor, "sev_alloc_tracking", &[i64::from(vm)]);
    }
    for (n, (_, first)) in vcpus.iter().enumerate() {
        prediction.visit(n, *first, false);
    }
    let mut random = Random::new(plan.seed);
    let mut live = Live { held: Vec::new(), moving: Moving::default(), entries: (0, 0), complete: false };
    let stopped = || stop.load(Ordering::Relaxed);
    for _ in 0..plan.held {
        if stopped() {
            return Ok(live);
        }
        for _ in 0..plan.moves {
            let (n, pcpu) = (random.below(vcpus.len()), pcpus[random.below(pcpus.len())]);
            let vcpu = &vcpus[n].0;
            // It stands still: it is moved before it runs again, and runs nowhere else.
            vcpu.move_to(pcpu)?;
            vcpu.tell(Order::Once)?;
            vcpu.wait()?;
            prediction.visit(n, pcpu, true);
        }
        let vm = u16::try_from(random.below(usize::from(plan.vms))).unwrap_or(0);
        let at = pcpus[random.below(pcpus.len())];
        settle(vcpus)?;
        let _pinned = Pinned::to(at).map_err(|e| format!("sched_setaffinity to pCPU {at}: {e}"))?;
        let entered = entered(vcpus, vm)?;
        let reclaim = reclaim(helper, vm)?;
        live.held.push(held(vm, entered, &reclaim, prediction.reclaim(vm, at)));
    }
    if plan.moving > 0 && !stopped() {
        running.store(true, Ordering::Release);
        for (vcpu, _) in vcpus {
            vcpu.tell(Order::On)?;
        }
        let moved = moving(helper, plan, stop, pcpus, vcpus, &mut random);
        running.store(false, Ordering::Release);
        for (vcpu, _) in vcpus {
            vcpu.wait()?;
        }
        live.moving = moved?;
    }
    // All stand still: the two counts are of the same entries.
    settle(vcpus)?;
    for vm in 0..plan.vms {
        let at_end = reclaim(helper, vm)?;
        live.entries.1 += at_end.pcpus.iter().map(|p| p.entries_after).sum::<u64>();
    }
    for (vcpu, _) in vcpus {
        live.entries.0 += vcpu.entries()?.iter().map(|e| e.1).sum::<u64>();
    }
    live.moving.entries = live.entries.1;
    let ran = plan.moves > 0 && !live.held.is_empty() || live.moving.reclaims > 0;
    if ran && live.entries.0 == 0 {
        return Err(
            "guests ran, and KVM's tracepoint kvm_entry never fired: this KVM does not tell where".to_owned()
        );
    }
    live.complete = !stopped();
    Ok(live)
}

/// Waits until every vCPU's thread sleeps: it has answered, and is about to wait for its next order.
fn settle(vcpus: &[(Vcpu, usize)]) -> Result<(), String> {
    let begin = Instant::now();
    for (vcpu, _) in vcpus {
        while os::thread_state(vcpu.thread) != Some('S') {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err("a vCPU's thread does not come to rest".to_owned());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

fn reclaim(helper: &Helper, vm: u16) -> Result<Reclaim, String> {
    helper.reclaim(u32::from(vm), MMU_NOTIFY_CLEAR).map_err(|e| match e.raw_os_error() {
        Some(libc::ETIME) => helper.info().map_or_else(|e| e.to_string(), |info| info.too_long()),
        Some(libc::EDEADLK) => ENDED.to_owned(),
        _ => format!("the module does not reclaim: {e}"),
    })
}

/// Where a VM was entered so far, by the kernel's counters.
fn entered(vcpus: &[(Vcpu, usize)], vm: u16) -> Result<Vec<usize>, String> {
    let mut entered = Vec::new();
    for (vcpu, _) in vcpus.iter().filter(|(v, _)| v.vm == vm) {
        entered.extend(vcpu.entries()?.into_iter().filter(|(_, n)| *n > 0).map(|(pcpu, _)| pcpu));
    }
    entered.sort_unstable();
    entered.dedup();
    Ok(entered)
}

fn held(vm: u16, entered: Vec<usize>, reclaim: &Reclaim, predicted: Option<Vec<Flush>>) -> Held {
    let set = |flushes: &Vec<Flush>| {
        let mut set: Vec<usize> = flushes.iter().map(|f| f.pcpu).collect();
        set.sort_unstable();
        set.dedup();
        set
    };
    let instruction = reclaim.pcpus.iter().filter(|p| p.flushed > 0).map(|p| p.instruction()).max();
    Held {
        vm,
        entered,
        probed: reclaim.where_(|p| p.entries_before > 0),
        asked: reclaim.where_(|p| p.asked > 0),
        flushed: reclaim.where_(|p| p.flushed > 0),
        instruction: instruction.unwrap_or(Instruction::Nop),
        keeps: predicted.iter().flatten().any(|f| f.keeps),
        predicted: predicted.as_ref().map(set),
        missed: reclaim.where_(|p| p.missed()),
        refused: reclaim.refused,
        cycles: reclaim.end - reclaim.begin,
    }
}

/// Threads move at random while flushers reclaim.
fn moving(
    helper: &Helper,
    plan: &Plan,
    stop: &AtomicBool,
    pcpus: &[usize],
    vcpus: &[(Vcpu, usize)],
    random: &mut Random,
) -> Result<Moving, String> {
    let (left, moving) = (AtomicU64::new(u64::from(plan.moving)), Mutex::new(Moving::default()));
    let failed: Mutex<Option<String>> = Mutex::new(None);
    let lock = |m: &mut Moving, r: &Reclaim| {
        m.reclaims += 1;
        m.missed += u64::from(r.pcpus.iter().any(|p| p.missed()));
        m.refused += u64::from(r.refused);
        m.cycles.add(r.end - r.begin, false);
        for p in r.pcpus.iter().filter(|p| p.flushed > 0) {
            m.flushes += 1;
            m.each.add(p.tsc_out - p.tsc_in, false);
        }
        m.unanswered += r.pcpus.iter().filter(|p| p.asked > 0 && p.flushed == 0).count() as u64;
    };
    std::thread::scope(|scope| {
        let flushers: Vec<_> = (0..plan.flushers.max(1))
            .map(|flusher| {
                let (left, moving, failed) = (&left, &moving, &failed);
                scope.spawn(move || {
                    let mut vm = flusher % plan.vms;
                    while !stop.load(Ordering::Relaxed)
                        && left
                            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1))
                            .is_ok()
                    {
                        match reclaim(helper, vm) {
                            Ok(r) => lock(&mut moving.lock().unwrap_or_else(PoisonError::into_inner), &r),
                            Err(why) => {
                                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                                return;
                            }
                        }
                        vm = (vm + 1) % plan.vms;
                    }
                })
            })
            .collect();
        let mut moves = 0;
        let mut refused = Ok(());
        while !flushers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let (n, pcpu) = (random.below(vcpus.len()), pcpus[random.below(pcpus.len())]);
            refused = vcpus[n].0.move_to(pcpu);
            if refused.is_err() {
                left.store(0, Ordering::Release);
                break;
            }
            moves += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        moving.lock().unwrap_or_else(PoisonError::into_inner).moves = moves;
        refused
    })?;
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(why) => Err(why),
        None => Ok(moving.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
