//! The machine that a program is compiled for: how many of what, the ranges of types, and the arithmetic of
//! the stepper.

use std::collections::BTreeMap;

use svm_policy::{BinOp, UnOp};

use crate::ast::{Infix, IntType, LockType, Object, Type};
use crate::diag::Fault;
use crate::{Config, Features, VmTables};

/// Words a mask may have.
const MASK_WORDS: i64 = 48;

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) pcpus: i64,
    pub(crate) vms: i64,
    pub(crate) pages: i64,
    pub(crate) asids: i64,
    pub(crate) vcpu_vm: Vec<u16>,
    pub(crate) tables: VmTables,
    pub(crate) features: Features,
    pub(crate) word_bits: i64,
    pub(crate) mask_words: u8,
    /// Entries that are guests' programs, if that is asked.
    pub(crate) guests: Option<Vec<String>>,
    /// Whether fences matter.
    pub(crate) store_buffers: bool,
    /// How many objects there can be of each declared structure.
    pub(crate) pools: BTreeMap<String, i64>,
    /// The range of `int` and its kin.
    int: (i64, i64),
}

impl Machine {
    pub(crate) fn new(config: &Config) -> Result<Machine, Fault> {
        let pcpus = i64::from(config.pcpus);
        let word_bits = i64::from(config.word_bits);
        if pcpus == 0 {
            return Err(Fault::nowhere("a machine without pCPUs"));
        }
        if !(1..=64).contains(&word_bits) {
            return Err(Fault::nowhere(format!("a mask's words have 1 to 64 bits, not {word_bits}")));
        }
        if config.vcpu_vm.iter().any(|vm| *vm >= config.vms) {
            return Err(Fault::nowhere("a vCPU of a VM that does not exist"));
        }
        let words = (pcpus + word_bits - 1) / word_bits;
        if words > MASK_WORDS {
            return Err(Fault::nowhere(format!(
                "{pcpus} pCPUs in words of {word_bits} bits make masks of {words} words; at most {MASK_WORDS} fit"
            )));
        }
        let vcpus = i64::try_from(config.vcpu_vm.len()).unwrap_or(i64::MAX);
        let most = pcpus.max(vcpus).max(i64::from(config.vms)).max(i64::from(config.pages) + crate::EXIT_NPF);
        Ok(Machine {
            pcpus,
            vms: i64::from(config.vms),
            pages: i64::from(config.pages),
            asids: i64::from(config.asids),
            vcpu_vm: config.vcpu_vm.clone(),
            tables: config.tables.clone(),
            features: config.features,
            word_bits,
            mask_words: u8::try_from(words).unwrap_or(1),
            guests: config.guests.clone(),
            store_buffers: config.store_buffers,
            pools: BTreeMap::new(),
            int: signed_range(-128, most.max(127)),
        })
    }

    pub(crate) fn vcpus(&self) -> i64 {
        i64::try_from(self.vcpu_vm.len()).unwrap_or(i64::MAX)
    }

    /// The type of a pCPU's number.
    pub(crate) fn cpu_type(&self) -> Type {
        Type::Int(IntType::Int)
    }

    /// How many there are of an object.
    pub(crate) fn count(&self, object: &Object) -> i64 {
        match object {
            Object::Vm => self.vms,
            Object::Vcpu => self.vcpus(),
            Object::Page => self.pages,
            Object::Pool(name) => self.pools.get(name).copied().unwrap_or(0),
        }
    }

    /// Bits of a word of a mask that stand for a pCPU.
    pub(crate) fn bits_of_word(&self, word: u8) -> u8 {
        let left = self.pcpus - i64::from(word) * self.word_bits;
        u8::try_from(left.clamp(0, self.word_bits)).unwrap_or(64)
    }

    /// A word with the bits of all pCPUs set.
    pub(crate) fn full_word(&self, word: u8) -> i64 {
        match self.bits_of_word(word) {
            64 => -1,
            bits => (1 << bits) - 1,
        }
    }

    /// The VMs that vCPUs belong to.
    pub(crate) fn vms_of_vcpus(&self) -> (i64, i64) {
        let lo = self.vcpu_vm.iter().min().copied().unwrap_or(0);
        let hi = self.vcpu_vm.iter().max().copied().unwrap_or(0);
        (i64::from(lo), i64::from(hi))
    }

    /// The range of `int`, or a larger one of a whole number of bits that holds both values.
    pub(crate) fn at_least_int(&self, lo: i64, hi: i64) -> (i64, i64) {
        signed_range(lo.min(self.int.0), hi.max(self.int.1))
    }

    /// The values of a type that is no enumeration.
    pub(crate) fn range(&self, ty: &Type) -> (i64, i64) {
        match ty {
            Type::Bool => (0, 1),
            Type::Int(int) => match int {
                IntType::Int | IntType::Long => self.int,
                IntType::UInt | IntType::ULong => (0, self.int.1 - self.int.0),
                IntType::U8 => (0, 0xff),
                IntType::U16 => (0, 0xffff),
                IntType::U32 => (0, 0xffff_ffff),
                IntType::U64 => (0, i64::MAX),
                IntType::S8 => (-0x80, 0x7f),
                IntType::S16 => (-0x8000, 0x7fff),
                IntType::S32 => (-0x8000_0000, 0x7fff_ffff),
                IntType::S64 => (i64::MIN, i64::MAX),
            },
            Type::Atomic => self.int,
            Type::Opaque => {
                let pools = self.pools.values().copied().max().unwrap_or(0);
                let most = self.vms.max(self.vcpus()).max(self.pages).max(pools) - 1;
                self.at_least_int(0, most.max(self.int.1 - self.int.0))
            }
            Type::Ref(object) => (-1, (self.count(object) - 1).max(-1)),
            // The slot of a lock: see `Var::domain`.
            Type::Lock(LockType::Rwlock | LockType::Rwsem | LockType::Completion) => (-127, 127),
            Type::Lock(LockType::Mutex | LockType::Spin) => (0, 127),
            Type::Void
            | Type::Enum(_)
            | Type::Mask
            | Type::MaskVar
            | Type::MaskPtr
            | Type::LockPtr(_)
            | Type::Func => (0, 0),
        }
    }
}

/// The smallest range of a signed number of whole bits that holds both values.
fn signed_range(lo: i64, hi: i64) -> (i64, i64) {
    let mut bits = 1;
    while bits < 64 && (lo < -(1i64 << (bits - 1)) || hi > (1i64 << (bits - 1)) - 1) {
        bits += 1;
    }
    range_of_bits(bits, true)
}

/// The values of a number of so many bits, 1 to 64 (63 if unsigned).
pub(crate) fn range_of_bits(bits: u64, signed: bool) -> (i64, i64) {
    match (bits, signed) {
        (64.., true) => (i64::MIN, i64::MAX),
        (63.., false) => (0, i64::MAX),
        (bits, true) => (-(1i64 << (bits.max(1) - 1)), (1i64 << (bits.max(1) - 1)) - 1),
        (bits, false) => (0, (1i64 << bits) - 1),
    }
}

/// How many bits a range takes.
pub(crate) fn width_of((lo, hi): (i64, i64)) -> u32 {
    sim_state::Domain::Range { lo, hi }.width()
}

/// The operation of the stepper for an operator without short circuit.
pub(crate) fn infix(op: Infix) -> Option<BinOp> {
    Some(match op {
        Infix::Mul => BinOp::Mul,
        Infix::Div => BinOp::Div,
        Infix::Rem => BinOp::Rem,
        Infix::Add => BinOp::Add,
        Infix::Sub => BinOp::Sub,
        Infix::Shl => BinOp::Shl,
        Infix::Shr => BinOp::Shr,
        Infix::Lt => BinOp::Lt,
        Infix::Le => BinOp::Le,
        Infix::Gt => BinOp::Gt,
        Infix::Ge => BinOp::Ge,
        Infix::Eq => BinOp::Eq,
        Infix::Ne => BinOp::Ne,
        Infix::BitAnd => BinOp::And,
        Infix::BitXor => BinOp::Xor,
        Infix::BitOr => BinOp::Or,
        Infix::And | Infix::Or => return None,
    })
}

/// What the stepper computes; a test holds the two against each other.
pub(crate) fn bin(op: BinOp, a: i64, b: i64) -> i64 {
    let shift = u32::try_from(b).ok().filter(|b| *b < 64);
    match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::Div => a.checked_div(b).unwrap_or(0),
        BinOp::Rem => a.checked_rem(b).unwrap_or(0),
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::Shl => shift.map_or(0, |b| a << b),
        BinOp::Shr => shift.map_or(0, |b| (a.cast_unsigned() >> b).cast_signed()),
        BinOp::Eq => i64::from(a == b),
        BinOp::Ne => i64::from(a != b),
        BinOp::Lt => i64::from(a < b),
        BinOp::Le => i64::from(a <= b),
        BinOp::Gt => i64::from(a > b),
        BinOp::Ge => i64::from(a >= b),
    }
}

/// What the stepper computes of one operand.
pub(crate) fn un(op: UnOp, a: i64) -> i64 {
    match op {
        UnOp::Neg => a.wrapping_neg(),
        UnOp::Not => !a,
        UnOp::IsZero => i64::from(a == 0),
        UnOp::Weight => i64::from(a.count_ones()),
        UnOp::LowestBit => i64::from(a.trailing_zeros()),
    }
}

/// A value cut to a range of a whole number of bits, as C's conversion does.
pub(crate) fn wrap(v: i64, lo: i64, hi: i64) -> i64 {
    if lo <= v && v <= hi {
        return v;
    }
    let mask = hi.wrapping_sub(lo);
    if lo >= 0 { v & mask } else { ((v & mask) ^ lo.wrapping_neg()).wrapping_add(lo) }
}
