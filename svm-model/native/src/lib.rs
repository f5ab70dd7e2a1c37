//! The native backend: what this host offers ([`probe`]), and what its caches, IPIs and system calls cost
//! ([`calibrate`]).
//!
//! *Promise*: depends on nothing simulated. Whatever cannot be done is said with its reason. Whole caches are written back only by
//! the kernel's own flush sites ([`sev`]), and only where [`safety`] allows it; what is changed on a host is put back.
//!
//! *Not here*: printing, and reading profiles (`cache-model/src/part/profile.rs`).
//!
//! The only crate with `unsafe`: instructions (`cpu`, [`cpuid`]), system calls (`os`), counters (`perf`, `entries`), mapped memory
//! (`buffer`), VMs and their memory (`vm`), requests to the helper module (`helper`) and the allocator's setting
//! ([`allocator`]), each in its module and nowhere else. Elsewhere than on x86-64 Linux these modules are missing, or do nothing,
//! and probe and calibration say so.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod admit;
pub mod allocator;
pub mod calibrate;
pub mod cpuid;
pub mod module_file;
pub mod noise;
pub mod primitive;
pub mod probe;
pub mod profile;
pub mod program;
pub mod safety;
pub mod sev;
pub mod sources;
pub mod stats;
pub mod stepper;
pub mod topology;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod buffer;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod cpu;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod entries;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod flushes;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod guest;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod helper;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod live;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod measure;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod os;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod perf;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod vm;

/// Whether this build can measure at all.
pub const SUPPORTED: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// What is said where it cannot.
pub const UNSUPPORTED: &str = "this program was built for another system than x86-64 Linux";
