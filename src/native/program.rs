//! A policy's text compiled for a real host.

use svm_model::lang::{Config, Diag, Features, Role, Source, VmTables, ast, compile, parse};
use svm_model::text;
use svm_native::admit::{self, refusals};
use svm_native::program::{Program, Shape};
use workloads::check::NamedText;

use crate::exit::{Exit, Failure};

/// A policy that this host can run.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its text.
    pub(crate) text: NamedText,
    /// Its syntax tree.
    pub(crate) ast: ast::Ast,
    /// Compiled, with the kernel's functions that it calls.
    pub(crate) program: Program,
}

impl Policy {
    /// A name for files and C: the text's, without folders, ending and what C does not take.
    pub(crate) fn ident(&self) -> String {
        let stem = std::path::Path::new(&self.text.name).file_stem();
        let stem = stem.map_or_else(|| self.text.name.clone(), |s| s.to_string_lossy().into_owned());
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }

    /// The functions that it defines.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &ast::Function> {
        functions(&self.ast)
    }
}

fn functions(ast: &ast::Ast) -> impl Iterator<Item = &ast::Function> {
    ast.items.iter().filter_map(|item| match &item.kind {
        ast::ItemKind::Function(f) => f.body.is_some().then_some(f),
        ast::ItemKind::Include(_)
        | ast::ItemKind::Define { .. }
        | ast::ItemKind::Enum { .. }
        | ast::ItemKind::Struct { .. }
        | ast::ItemKind::Per { .. }
        | ast::ItemKind::Global { .. }
        | ast::ItemKind::Lock { .. }
        | ast::ItemKind::Objects { .. } => None,
    })
}

/// Compiles a policy for a host, or says why it cannot run there.
pub(crate) fn policy(text: &NamedText, shape: &Shape) -> Result<Policy, Failure> {
    let source = Source { file: &text.file, text: &text.text, role: Role::Policy };
    let ast = parse(&source).map_err(|diags| said(&diags))?;
    let defined: Vec<&str> = functions(&ast).map(|f| f.name.name.as_str()).collect();
    let mut hooks: Vec<&str> = admit::hooks().filter(|h| defined.contains(h)).collect();
    // How the kernel's text loads and unloads a vCPU.
    hooks.extend(["vcpu_sched_in", "vcpu_sched_out"]);
    let pcpus = u16::try_from(shape.pcpus()).unwrap_or(u16::MAX);
    let config = Config {
        pcpus,
        vms: shape.vms,
        asids: shape.vms + 1,
        tables: VmTables::default(),
        features: Features::default(),
        vcpu_vm: shape.vcpu_vm.clone(),
        pages: 1,
        word_bits: 64,
        store_buffers: false,
        guests: None,
        constants: Vec::new(),
        defines: Vec::new(),
    };
    let kernel = text::default_kernel();
    let kernel = Source { file: kernel.file, text: kernel.text, role: Role::Kernel };
    let code = compile(&[kernel, source], &text::find, &hooks, &config).map_err(|diags| said(&diags))?;
    let program = Program::of(&code, pcpus);
    let mut whys: Vec<String> = Vec::new();
    for (name, why) in defined.iter().filter_map(|name| admit::hookless(name).map(|why| (name, why))) {
        whys.push(format!("{}: `{name}`: {why}", text.file));
    }
    for refusal in refusals(&program) {
        let place = code.places[usize::from(refusal.at)];
        let at = format!("{}:{}:{}", code.files[usize::from(place.file)], place.line, place.column);
        let said = format!("{at}: `{}`: {}", code.texts[place.text as usize], refusal.why);
        if !whys.contains(&said) {
            whys.push(said);
        }
    }
    if whys.is_empty() {
        return Ok(Policy { text: text.clone(), ast, program });
    }
    let list: String = whys.iter().map(|why| format!("\n  {why}")).collect();
    Err(Failure::input(format!("the policy `{}` cannot run on real hardware:{list}", text.name)))
}

fn said(diags: &[Diag]) -> Failure {
    Failure { exit: Exit::Usage, message: diags.iter().map(|d| format!("{d}\n")).collect() }
}
