//! Types.

use super::{Parsed, Parser};
use crate::ast::{IntType, LockType, Object, Type};
use crate::diag::Fault;
use crate::kernel::{ATTRIBUTES, instead_of};
use crate::lex::Tok;

impl Parser<'_> {
    pub(super) fn type_starts(&self) -> bool {
        matches!(self.tok(), Tok::Word(w) if TYPE_WORDS.contains(&w) || ATTRIBUTES.contains(&w))
    }

    /// What changes nothing about a type.
    pub(super) fn qualifiers(&mut self) {
        while matches!(self.tok(), Tok::Word(w) if w == "const" || ATTRIBUTES.contains(&w)) {
            self.next();
        }
    }

    /// A type, with its stars.
    pub(super) fn ty(&mut self) -> Parsed<Type> {
        self.qualifiers();
        let start = self.span();
        let base = self.base_type()?;
        self.qualifiers();
        let mut stars = 0;
        while self.eat("*") {
            stars += 1;
            self.qualifiers();
        }
        let span = start.to(self.behind());
        let whole = match (base, stars) {
            (Base::Plain(ty), 0) => Some(ty),
            (Base::Plain(Type::Void), 1) => Some(Type::Opaque),
            (Base::Plain(Type::Mask), 1) => Some(Type::MaskPtr),
            (Base::Plain(Type::Lock(kind)), 1) => Some(Type::LockPtr(kind)),
            (Base::Object(object), 1) => Some(Type::Ref(object)),
            (Base::Object(object), 0) => {
                let fault = Fault::at(span, "the machine's objects are only referred to")
                    .expected("expected a pointer: add `*`");
                let help = match &object {
                    Object::Pool(name) => {
                        instead_of(name).or_else(|| crate::diag::nearest(name, STRUCTS)).or_else(|| {
                            Some(format!(
                                "the structures that are variables themselves are {}",
                                STRUCTS[3..].join(", ")
                            ))
                        })
                    }
                    Object::Vm | Object::Vcpu | Object::Page => None,
                };
                return self.fail(fault.help_if(help));
            }
            (Base::Plain(_) | Base::Object(_), _) => None,
        };
        match whole {
            Some(ty) => Ok(ty),
            None => {
                let fault = Fault::at(span, "no such pointer type").help(
                    "there are pointers to `struct kvm`, `struct kvm_vcpu`, `struct page`, `struct cpumask`, to locks, \
                     to what `DEFINE_OBJECTS` declares, and `void *`",
                );
                self.fail(fault)
            }
        }
    }

    fn base_type(&mut self) -> Parsed<Base> {
        let token = self.next();
        let Tok::Word(word) = token.tok else {
            self.at -= usize::from(token.tok != Tok::End);
            return self.unexpected("a type");
        };
        let plain = |ty| Ok(Base::Plain(ty));
        let int = |kind| Ok(Base::Plain(Type::Int(kind)));
        match word {
            "void" => plain(Type::Void),
            "bool" | "_Bool" => plain(Type::Bool),
            "int" | "signed" => {
                self.eat_word("int");
                int(IntType::Int)
            }
            "unsigned" => {
                if self.eat_word("long") {
                    self.eat_word("long");
                    self.eat_word("int");
                    return int(IntType::ULong);
                }
                self.eat_word("int");
                int(IntType::UInt)
            }
            "long" => {
                self.eat_word("long");
                self.eat_word("int");
                int(IntType::Long)
            }
            "u8" => int(IntType::U8),
            "u16" => int(IntType::U16),
            "u32" => int(IntType::U32),
            "u64" => int(IntType::U64),
            "s8" => int(IntType::S8),
            "s16" => int(IntType::S16),
            "s32" => int(IntType::S32),
            "s64" => int(IntType::S64),
            "atomic_t" | "refcount_t" => plain(Type::Atomic),
            "cpumask_t" => plain(Type::Mask),
            "cpumask_var_t" => plain(Type::MaskVar),
            "spinlock_t" => plain(Type::Lock(LockType::Spin)),
            "rwlock_t" => plain(Type::Lock(LockType::Rwlock)),
            "smp_call_func_t" => plain(Type::Func),
            "enum" => {
                let name = self.ident("the name of an enumeration")?;
                plain(Type::Enum(name.name))
            }
            "struct" => {
                let tag = self.ident("the name of a structure")?;
                match tag.name.as_str() {
                    "kvm" => Ok(Base::Object(Object::Vm)),
                    "kvm_vcpu" => Ok(Base::Object(Object::Vcpu)),
                    "page" => Ok(Base::Object(Object::Page)),
                    "cpumask" => plain(Type::Mask),
                    "mutex" => plain(Type::Lock(LockType::Mutex)),
                    "rw_semaphore" => plain(Type::Lock(LockType::Rwsem)),
                    "completion" => plain(Type::Lock(LockType::Completion)),
                    other => Ok(Base::Object(Object::Pool(other.to_owned()))),
                }
            }
            other => {
                let fault = Fault::at(token.span, format!("`{other}` is not a type of the language"))
                    .expected("expected a type")
                    .help("integers are `int`, `unsigned int`, `long`, `unsigned long`, `u8`..`u64`, `s8`..`s64`");
                self.fail(fault)
            }
        }
    }
}

/// Names behind `struct`.
pub(crate) const STRUCTS: [&str; 7] =
    ["kvm", "kvm_vcpu", "page", "cpumask", "mutex", "rw_semaphore", "completion"];

/// A type before its stars.
enum Base {
    Plain(Type),
    Object(Object),
}

/// Words that begin a type.
pub(crate) const TYPE_WORDS: [&str; 29] = [
    "void",
    "bool",
    "_Bool",
    "int",
    "signed",
    "unsigned",
    "long",
    "short",
    "char",
    "u8",
    "u16",
    "u32",
    "u64",
    "s8",
    "s16",
    "s32",
    "s64",
    "atomic_t",
    "refcount_t",
    "cpumask_t",
    "cpumask_var_t",
    "spinlock_t",
    "rwlock_t",
    "smp_call_func_t",
    "enum",
    "struct",
    "const",
    "float",
    "double",
];
