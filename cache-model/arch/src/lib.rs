//! The words of the field: ids, addresses, tags and flush instructions, shared by every crate.
//!
//! *Promise*: `no_std`, no allocation, no dependency; the native backend uses the same words as the simulator.
#![no_std]
#![forbid(unsafe_code)]

use core::fmt;

/// One hardware thread, numbered as the kernel numbers CPUs (0-based). Prints as `pcpu3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PcpuId(pub u16);

/// One physical core: SMT siblings share it, and with it the private caches. Prints as `core3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CoreId(pub u16);

/// One core complex: the cores that share an L3. Prints as `ccx1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CcxId(pub u16);

/// One virtual machine of the model. Prints as `vm0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmId(pub u16);

/// One virtual CPU, numbered over all VMs of the model. Prints as `vcpu2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuId(pub u16);

/// Address-space identifier; 0 is the host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Asid(pub u16);

impl Asid {
    /// The host's ASID. A C=0 access is always made under it, whoever makes it (AMD APM vol. 2, 15.34).
    pub const HOST: Asid = Asid(0);
}

/// The encryption bit of a physical address. It selects a key; it is not a property of the data.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CBit {
    /// C=0: the access bypasses the guest's key and is tagged as the host's.
    Clear,
    /// C=1: the access uses the key of its ASID.
    Set,
}

/// What a cached line is tagged with beside its address: (C-bit, ASID) in one dense number.
///
/// 0 is C=0 (always ASID 0); n is C=1 under the n-th guest ASID of the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(pub u8);

impl Tag {
    /// C=0, ASID 0: the host, devices, and guests touching shared memory.
    pub const HOST: Tag = Tag(0);

    /// The tag of an access: C=0 always means ASID 0, whoever accesses.
    #[must_use]
    pub fn select(asid: Asid, c_bit: CBit) -> Tag {
        match c_bit {
            CBit::Clear => Tag::HOST,
            CBit::Set => Tag(u8::try_from(asid.0).unwrap_or(u8::MAX)),
        }
    }

    /// The tag under which a VM touches its private memory, with one ASID a VM: VM n has ASID n + 1.
    #[must_use]
    pub fn of_vm(vm: VmId) -> Tag {
        Tag::select(Asid(vm.0 + 1), CBit::Set)
    }

    /// Whether this is a guest's tag (C=1).
    #[must_use]
    pub fn is_guest(self) -> bool {
        self != Tag::HOST
    }
}

/// What a CPU instruction, or a device, wants of a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// Whole-cache flush instructions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FlushOp {
    /// Write back every dirty line, invalidate every line, whatever its tag.
    Wbinvd,
    /// Write back every dirty line, leave lines valid and clean.
    Wbnoinvd,
}

/// Which caches a WBINVD or WBNOINVD of one pCPU acts on (CPUID `8000_001D` EDX\[0\]; the default is
/// what the PPR and CacheWarp's "entire L3 of the CCX" say).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum WbinvdScope {
    /// The core's own L1 and L2 only.
    Core,
    /// The core's own L1 and L2, and the L3 of its CCX.
    #[default]
    CoreAndL3,
    /// Every private cache of the CCX, and its L3.
    Ccx,
    /// Every cache of the machine's socket.
    Package,
}

impl WbinvdScope {
    /// The scope of a name: `core`, `core+ccx-l3`, `ccx`, `package`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<WbinvdScope> {
        match name {
            "core" => Some(WbinvdScope::Core),
            "core+ccx-l3" => Some(WbinvdScope::CoreAndL3),
            "ccx" => Some(WbinvdScope::Ccx),
            "package" => Some(WbinvdScope::Package),
            _ => None,
        }
    }
}

macro_rules! prints_as {
    ($($t:ident => $prefix:literal),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl $t {
            /// The number as an index.
            #[must_use]
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    )*};
}
prints_as!(PcpuId => "pcpu", CoreId => "core", CcxId => "ccx", VmId => "vm", VcpuId => "vcpu");

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("host"),
            n => write!(f, "vm{}", n - 1),
        }
    }
}

impl fmt::Display for FlushOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlushOp::Wbinvd => "WBINVD",
            FlushOp::Wbnoinvd => "WBNOINVD",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_bit_clear_is_the_host_whoever_accesses() {
        assert_eq!(Tag::select(Asid(7), CBit::Clear), Tag::HOST);
        assert_eq!(Tag::select(Asid(7), CBit::Set), Tag(7));
    }
}
