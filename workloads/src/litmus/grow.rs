//! Larger tests made of a test: more pCPUs, vCPUs, pages and flushers.

use svm_lang::Role;
use svm_lang::ast::{Ast, ExprKind, ItemKind, Stmt, StmtKind};
use toml::Spanned;

use super::Litmus;
use super::front::{Front, PageFront, TaskFront, VcpuFront};
use crate::edit::{self, Edit};

/// By how much a test is larger than its file says. What makes a model larger by more comes first, so that of two
/// growths the lesser one is tried first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Growth {
    /// Copies of the first flusher, each with a page and a pCPU of its own.
    pub flushers: u16,
    /// Copies of the first vCPU, each on a pCPU of its own.
    pub vcpus: u16,
    /// pCPUs to which every vCPU may move, too.
    pub pcpus: u16,
    /// Pages that guests and the first flusher treat as they do its page.
    pub pages: u16,
}

impl Growth {
    /// The next larger ones, in a fixed order.
    #[must_use]
    pub fn next(self) -> [Growth; 4] {
        [
            Growth { flushers: self.flushers + 1, ..self },
            Growth { pages: self.pages + 1, ..self },
            Growth { vcpus: self.vcpus + 1, ..self },
            Growth { pcpus: self.pcpus + 1, ..self },
        ]
    }

    /// The next smaller ones.
    pub fn previous(self) -> impl Iterator<Item = Growth> {
        let less = [
            self.flushers.checked_sub(1).map(|flushers| Growth { flushers, ..self }),
            self.pages.checked_sub(1).map(|pages| Growth { pages, ..self }),
            self.vcpus.checked_sub(1).map(|vcpus| Growth { vcpus, ..self }),
            self.pcpus.checked_sub(1).map(|pcpus| Growth { pcpus, ..self }),
        ];
        less.into_iter().flatten()
    }

    /// Whether no count is larger than the other's.
    #[must_use]
    pub fn within(self, other: Growth) -> bool {
        self.pcpus <= other.pcpus
            && self.vcpus <= other.vcpus
            && self.pages <= other.pages
            && self.flushers <= other.flushers
    }
}

/// How large a test is: pCPUs, vCPUs, pages, and tasks on the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "what they count is said above")]
pub struct Size {
    pub pcpus: u16,
    pub vcpus: usize,
    pub pages: usize,
    pub tasks: usize,
}

/// Most pCPUs of a test.
const PCPUS: u16 = 16;

/// Whether a statement names something.
fn names(stmt: &Stmt, name: &str) -> bool {
    let mut found = false;
    if let StmtKind::Expr(e) = &stmt.kind {
        edit::within(e, &mut |e| found |= matches!(&e.kind, ExprKind::Name(n) if n == name));
    }
    found
}

/// Edits from one name to another within a piece of the text.
fn renamed(text: &str, ast: &Ast, within: (usize, usize), from: &str, to: &str) -> String {
    let mut edits = Vec::new();
    edit::exprs(ast, &mut |_, e| {
        let inside = within.0 <= e.span.start as usize && e.span.end as usize <= within.1;
        if inside && matches!(&e.kind, ExprKind::Name(n) if n == from) {
            let (start, end) = (e.span.start as usize - within.0, e.span.end as usize - within.0);
            edits.push(Edit { start, end, with: to.to_owned() });
        }
    });
    edit::apply(text.get(within.0..within.1).unwrap_or_default(), &edits)
}

impl Litmus {
    /// How large it is.
    #[must_use]
    pub fn size(&self) -> Size {
        let f = &self.front;
        Size { pcpus: f.pcpus, vcpus: f.vcpu.len(), pages: f.pages.len(), tasks: f.task.len() }
    }

    /// A larger test.
    ///
    /// # Errors
    ///
    /// What of the test cannot be copied.
    pub fn grown(&self, by: Growth) -> Result<Litmus, String> {
        let mut grown = self.clone();
        let wrong = |what: &str| format!("{}: {what}", self.file);
        if by.vcpus > 0 || by.pcpus > 0 {
            let first = self.front.vcpu.first().ok_or_else(|| wrong("there is no vCPU to copy"))?;
            for _ in 0..by.vcpus {
                let pcpu = grown.front.add_pcpu();
                grown.front.vcpu.push(VcpuFront { pcpus: Spanned::new(0..0, vec![pcpu]), ..first.clone() });
            }
            for _ in 0..by.pcpus {
                let pcpu = grown.front.add_pcpu();
                grown.front.vcpu.iter_mut().for_each(|v| v.pcpus.get_mut().push(pcpu));
            }
        }
        if by.pages > 0 || by.flushers > 0 {
            grown.add_pages(by).map_err(|what| wrong(&what))?;
        }
        if grown.front.pcpus > PCPUS {
            return Err(wrong(&format!("{} pCPUs: {PCPUS} are the most", grown.front.pcpus)));
        }
        Ok(grown)
    }

    fn add_pages(&mut self, by: Growth) -> Result<(), String> {
        let ast = edit::tree(&self.body, Role::Litmus).ok_or("the body cannot be read")?;
        let within = |function: &str, page: &str| {
            let mut found = false;
            edit::stmts(&ast, &mut |f, stmt| found |= f == function && names(stmt, page));
            found
        };
        // The first flusher, and its page.
        let plain = |p: &&PageFront| !p.shared && p.vmsa_of.is_none();
        let flusher = self.front.task.iter().find_map(|task| {
            let page = self.front.pages.iter().filter(plain).find(|p| within(&task.run, p.name()))?;
            Some((task.run.clone(), page.clone()))
        });
        let (run, page) = flusher.ok_or("no task on the host names a page of a guest's")?;
        let guests: Vec<String> = self.front.vcpu.iter().map(|v| v.guest.clone()).collect();
        if !guests.iter().any(|g| within(g, page.name())) {
            return Err(format!("no guest accesses `{}`, which `{run}` names", page.name()));
        }
        let function = ast.items.iter().find_map(|item| {
            let ItemKind::Function(f) = &item.kind else { return None };
            (f.name.name == run && f.body.is_some()).then_some((item.span, f.name.span))
        });
        let (whole, name) = function.ok_or("the flusher's function cannot be found")?;
        let mut taken: Vec<String> = self.front.pages.iter().map(|p| p.name().to_owned()).collect();
        let mut fresh = || {
            let free = (2..).map(|n| format!("{}_{n}", page.name())).find(|n| !taken.contains(n));
            let free = free.unwrap_or_default();
            taken.push(free.clone());
            free
        };
        let with_page: Vec<String> = (0..by.pages).map(|_| fresh()).collect();
        let with_flusher: Vec<String> = (0..by.flushers).map(|_| fresh()).collect();
        let mut edits = Vec::new();
        edit::stmts(&ast, &mut |within, stmt| {
            let guest = guests.iter().any(|g| g == within);
            if !names(stmt, page.name()) || !guest && within != run {
                return;
            }
            let span = (stmt.span.start as usize, stmt.span.end as usize);
            let others = with_flusher.iter().filter(|_| guest);
            let copies = with_page.iter().chain(others);
            let copies: Vec<String> =
                copies.map(|to| renamed(&self.body, &ast, span, page.name(), to)).collect();
            let same = edit::covered(&self.body, stmt.span);
            edits.push(Edit::of(stmt.span, format!("{{ {same} {} }}", copies.join(" "))));
        });
        let mut more = String::new();
        for to in &with_flusher {
            let copy = format!("{run}_{to}");
            let (start, end) = (whole.start as usize, whole.end as usize);
            let body = renamed(&self.body, &ast, (name.end as usize, end), page.name(), to);
            let head = self.body.get(start..name.start as usize).unwrap_or_default();
            more.push_str(&format!("\n{head}{copy}{body}\n"));
            let pcpu = self.front.add_pcpu();
            self.front.task.push(TaskFront { run: copy, pcpus: Spanned::new(0..0, vec![pcpu]) });
        }
        for name in with_page.into_iter().chain(with_flusher) {
            self.front.pages.push(PageFront { name: Spanned::new(0..0, name), ..page.clone() });
        }
        self.body = edit::apply(&self.body, &edits) + &more;
        Ok(())
    }
}

impl Front {
    /// One more pCPU, with a core of its own in the CCX of the last one; its number.
    fn add_pcpu(&mut self) -> u16 {
        let pcpu = self.pcpus;
        self.pcpus += 1;
        if let Some(cores) = &mut self.cores {
            let next = cores.iter().max().map_or(0, |m| m + 1);
            cores.push(next);
        }
        if let Some(ccxs) = &mut self.ccxs {
            let last = ccxs.last().copied().unwrap_or(0);
            ccxs.push(last);
        }
        pcpu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn litmus(name: &str) -> Litmus {
        let (_, file, text) = super::super::BUILTIN.iter().find(|b| b.0 == name).unwrap();
        Litmus::parse(file, text).unwrap()
    }

    #[test]
    fn what_grows_is_counted_and_written() {
        let test = litmus("reclaim-one-vcpu");
        let by = Growth { pcpus: 1, vcpus: 1, pages: 1, flushers: 1 };
        let (small, large) = (test.size(), test.grown(by).unwrap());
        let size = large.size();
        assert_eq!((size.vcpus, size.tasks), (small.vcpus + 1, small.tasks + 1));
        assert_eq!((size.pages, size.pcpus), (small.pages + 2, small.pcpus + 3));
        for written in ["guest_write(P_2)", "guest_write(P_3)", "madvise_dontneed(vm0, P_2)"] {
            assert!(large.body.contains(written), "no {written} in {}", large.body);
        }
        assert_eq!(large.body.matches("madvise_dontneed(vm0, P_3)").count(), 1);
        assert_eq!(test.grown(Growth::default()).unwrap().body, test.body);
    }

    #[test]
    fn what_cannot_grow_says_why() {
        let pages = Growth { pages: 1, ..Growth::default() };
        let said = litmus("shared-page").grown(pages).unwrap_err();
        assert!(said.contains("no task on the host names a page"), "{said}");
        let pcpus = Growth { pcpus: 99, ..Growth::default() };
        assert!(litmus("two-flushers").grown(pcpus).unwrap_err().contains("16 are the most"));
    }

    #[test]
    fn growths_are_ordered() {
        let one = Growth { pages: 1, flushers: 2, ..Growth::default() };
        assert!(one.previous().all(|p| p.within(one) && !one.within(p)));
        assert_eq!(one.previous().count(), 2);
        assert!(one.next().iter().all(|n| n.previous().any(|p| p == one)));
    }
}
