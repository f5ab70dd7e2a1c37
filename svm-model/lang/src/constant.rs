//! Constant expressions: what `#define`, enumerations, sizes and initialisers are made of.

use crate::ast::{Expr, ExprKind, Infix, IntType, Prefix, Type};
use crate::decl::{Global, Program};
use crate::diag::{Fault, nearest};

/// The kernel's constants that texts may use; a text that declares one of these names has its own.
pub(crate) const KERNEL_CONSTANTS: [(&str, i64); 42] = [
    ("EPERM", 1),
    ("ENOENT", 2),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("E2BIG", 7),
    ("EBADF", 9),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("ENODEV", 19),
    ("EINVAL", 22),
    ("ENOTTY", 25),
    ("ENOSPC", 28),
    ("EDEADLK", 35),
    ("EOPNOTSUPP", 95),
    ("ETIMEDOUT", 110),
    ("GFP_NOWAIT", 0),
    ("GFP_ATOMIC", 0),
    ("GFP_KERNEL", MAY_SLEEP),
    ("GFP_KERNEL_ACCOUNT", MAY_SLEEP),
    ("PAGE_SIZE", 4096),
    ("KVM_X86_DEFAULT_VM", 0),
    ("KVM_X86_SW_PROTECTED_VM", 1),
    ("KVM_X86_SEV_VM", 2),
    ("KVM_X86_SEV_ES_VM", 3),
    ("KVM_X86_SNP_VM", 4),
    ("SEV_RET_SUCCESS", 0),
    ("SEV_RET_INVALID_PLATFORM_STATE", 1),
    ("SEV_RET_INVALID_GUEST_STATE", 2),
    ("SEV_RET_POLICY_FAILURE", 7),
    ("SEV_RET_INACTIVE", 8),
    ("SEV_RET_ASID_OWNED", 0xc),
    ("SEV_RET_INVALID_ASID", 0xd),
    ("SEV_RET_WBINVD_REQUIRED", 0xe),
    ("SEV_RET_DFFLUSH_REQUIRED", 0xf),
    ("SEV_RET_INVALID_GUEST", 0x10),
    ("SEV_RET_ACTIVE", 0x12),
    ("SEV_RET_INVALID_PARAM", 0x16),
];

/// The flag of an allocation that may sleep.
const MAY_SLEEP: i64 = 1;

/// The value of a constant expression.
pub(crate) fn evaluate(program: &Program<'_>, expr: &Expr, depth: u32) -> Result<(i64, Type), Fault> {
    let int = Type::Int(IntType::Int);
    let not_constant =
        || Fault::at(expr.span, format!("`{expr}` is not a constant")).expected("expected a constant");
    if depth > 256 {
        return Err(not_constant());
    }
    let number = |e: &Expr| match evaluate(program, e, depth + 1) {
        Ok((v, ty)) if !matches!(ty, Type::Ref(_) | Type::Opaque) => Ok(v),
        Ok(_) => Err(Fault::at(e.span, "a reference is not a number").expected("expected a number")),
        Err(fault) => Err(fault),
    };
    match &expr.kind {
        ExprKind::Int(n) => Ok((*n, int)),
        ExprKind::Bool(b) => Ok((i64::from(*b), Type::Bool)),
        ExprKind::Null => Ok((-1, Type::Opaque)),
        ExprKind::Name(name) => match program.globals.get(name.as_str()) {
            Some(Global::Const { value, ty }) => Ok((*value, ty.clone())),
            Some(Global::Var(_) | Global::Func(_)) => Err(not_constant()),
            None => {
                let constants = program.globals.iter().filter(|(_, g)| matches!(g, Global::Const { .. }));
                Err(Fault::at(expr.span, format!("unknown constant `{name}`"))
                    .expected("expected a constant that is declared above")
                    .help_if(nearest(name, constants.map(|(n, _)| n))))
            }
        },
        ExprKind::Prefix(op, of) => {
            let v = number(of)?;
            match op {
                Prefix::Neg => Ok((v.wrapping_neg(), int)),
                Prefix::BitNot => Ok((!v, int)),
                Prefix::Not => Ok((i64::from(v == 0), Type::Bool)),
                Prefix::AddressOf => Err(not_constant()),
            }
        }
        ExprKind::Infix(op, a, b) => {
            let (a, b) = (number(a)?, number(b)?);
            let v = match op {
                Infix::And => i64::from(a != 0 && b != 0),
                Infix::Or => i64::from(a != 0 || b != 0),
                Infix::Mul
                | Infix::Div
                | Infix::Rem
                | Infix::Add
                | Infix::Sub
                | Infix::Shl
                | Infix::Shr
                | Infix::Lt
                | Infix::Le
                | Infix::Gt
                | Infix::Ge
                | Infix::Eq
                | Infix::Ne
                | Infix::BitAnd
                | Infix::BitXor
                | Infix::BitOr => fold_infix(*op, a, b),
            };
            Ok((v, int))
        }
        ExprKind::Cond(c, a, b) => {
            let c = number(c)?;
            evaluate(program, if c == 0 { b } else { a }, depth + 1)
        }
        ExprKind::Cast(Type::Int(_), of) => Ok((number(of)?, int)),
        ExprKind::Call { name, args } => match (name.name.as_str(), &args[..]) {
            ("ATOMIC_INIT" | "REFCOUNT_INIT", [of]) => Ok((number(of)?, int)),
            ("BIT", [of]) => Ok((fold_infix(Infix::Shl, 1, number(of)?), int)),
            _ => Err(not_constant()),
        },
        ExprKind::Assign(..)
        | ExprKind::Step { .. }
        | ExprKind::Field(..)
        | ExprKind::Index(..)
        | ExprKind::Cast(..) => Err(not_constant()),
    }
}

fn fold_infix(op: Infix, a: i64, b: i64) -> i64 {
    crate::machine::infix(op).map_or(0, |op| crate::machine::bin(op, a, b))
}
