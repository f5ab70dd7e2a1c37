//! Policies for real hardware, as far as any machine can show it: the module's sources, and what is refused and why.

use crate::program::{Folder, sevsim, sevsim_in};

#[test]
fn the_sources_hold_the_policies_as_they_were_given() {
    let folder = Folder::new();
    let mine = "/* Mine. */\nvoid sev_writeback_caches(struct kvm *kvm)\n{\n\twbinvd_on_all_cpus();\n}\n";
    folder.file("mine.c", mine);
    let args = ["module", "out", "--policy", "test-and-clear", "--policy", "./mine.c"];
    let ran = sevsim_in(&folder, &args).ends(0);
    assert!(ran.out.contains("test-and-clear, ./mine.c\nnext: sh out/build.sh\n"), "{}", ran.out);
    let file = |name: &str| std::fs::read_to_string(folder.path.join("out").join(name)).expect("written");
    let policy = file("policy_0.c");
    // What C writes elsewhere: fields that every vCPU has, and what fields start as.
    for part in [
        "#define pre_sev_run SEVSIM_OF(0, pre_sev_run)",
        "#line 1 \"policies/test-and-clear.c\"",
        "struct kvm_vcpu { struct kvm *kvm; int vcpu_idx;\n\tint last_vmentry_cpu ;\n};",
        "\tvcpu->last_vmentry_cpu = -1;\n\tvcpu->kvm = kvm;",
        "memset(per_cpu_ptr(&sev_vmcb, cpu), 0, sizeof(sev_vmcb));",
        "\t.pre_sev_run = SEVSIM_OF(0, pre_sev_run),",
        "\t.sev_writeback_caches = SEVSIM_OF(0, sev_writeback_caches),",
    ] {
        assert!(policy.contains(part), "{part}\n{policy}");
    }
    assert!(!policy.contains(".sev_vcpu_load ="));
    let mine = file("policy_1.c");
    assert!(
        mine.contains("struct kvm { int no_field; };") && mine.contains("\"/* Mine. */\\012\""),
        "{mine}"
    );
    assert!(file("policies.c").contains("sevsim_nr_policies = 2;"));
    // A second time, with fewer: none of the first time's stays.
    sevsim_in(&folder, &["module", "out", "--policy", "no-flush"]).ends(0);
    assert!(!folder.path.join("out/policy_1.c").exists());
    for name in ["Makefile", "build.sh", "main.c", "cpu.c", "flush.c", "session.c", "sevsim_flush.h"] {
        assert!(folder.path.join("out").join(name).exists(), "{name}");
    }
}

#[test]
fn loops_ask_whether_they_may_go_on() {
    let folder = Folder::new();
    let mine = "int go;\nDEFINE_MUTEX(m);\nvoid sev_writeback_caches(struct kvm *kvm)\n{\n\tint i;\n\tint cpu;\n\
        \twhile (READ_ONCE(go) == 0) {\n\t}\n\tdo {\n\t\tcpu_relax();\n\t} while (READ_ONCE(go) == 1);\n\
        \tfor (i = 0; i < 4; i++)\n\t\tif (READ_ONCE(go) == i)\n\t\t\tcontinue;\nagain:\n\
        \tif (READ_ONCE(go) == 2)\n\t\tgoto again;\n\telse\n\t\tgoto out;\nout:\n\
        \tscoped_guard(mutex, &m) {\n\t\tfor_each_online_cpu(cpu)\n\t\t\twbinvd_on_cpu(cpu);\n\t}\n}\n";
    folder.file("mine.c", mine);
    sevsim_in(&folder, &["module", "out", "--policy", "./mine.c"]).ends(0);
    let policy = std::fs::read_to_string(folder.path.join("out/policy_0.c")).expect("written");
    let check = "if (!sevsim_goes_on()) break;";
    for part in [
        format!("\twhile (READ_ONCE(go) == 0) {{ {check}\n\t}}\n\tdo {{ {check}\n\t\tcpu_relax();\n"),
        format!("i < 4; i++)\n\t\t{check} else if (READ_ONCE(go) == i)\n"),
        "\t\tfor (; sevsim_goes_on(); ) goto again;\n\telse\n\t\tgoto out;\n".to_owned(),
        "scoped_guard(mutex, &m) {\n\t\tfor_each_online_cpu(cpu)\n\t\t\twbinvd_on_cpu(cpu);\n".to_owned(),
    ] {
        assert!(policy.contains(&part), "{part}\n{policy}");
    }
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = Folder::new();
    let module = |dir: &str| sevsim_in(&folder, &["module", dir, "--policy", "no-flush"]);
    std::fs::create_dir(folder.path.join("own")).expect("a folder");
    for name in ["Makefile", "policy_0.c"] {
        folder.file(&format!("own/{name}"), "mine");
    }
    module("own").ends(2).says(&["own: this folder holds other files, and no sevsim_flush.h"]);
    for name in ["Makefile", "policy_0.c"] {
        assert_eq!(folder.read(&format!("own/{name}")), "mine");
    }
    // An empty one is taken, and one that is the module's.
    std::fs::create_dir(folder.path.join("empty")).expect("a folder");
    module("empty").ends(0);
    module("empty").ends(0);
    module("own/Makefile").ends(2).says(&["own/Makefile: cannot be read"]);
}

#[test]
fn what_cannot_run_for_real_is_refused_with_the_reason_and_the_place() {
    let folder = Folder::new();
    let hook = |body: &str| format!("struct kvm {{ struct mutex m; cpumask_var_t c; }};\n{body}");
    let refused = |name: &str, text: &str, said: &[&str]| {
        folder.file(name, text);
        let path = format!("./{name}");
        for args in
            [["module", "out", "--policy", path.as_str()], ["native", "--dry-run", "--policy", path.as_str()]]
        {
            sevsim_in(&folder, &args).ends(2).says(said);
        }
        assert!(!folder.path.join("out").exists(), "nothing is written");
    };
    sevsim_in(&folder, &["module", "out", "--policy", "oracle"])
        .ends(2)
        .says(&["policies/oracle.c:16:2: `oracle_update(kvm);`", "no hardware tells"]);
    sevsim_in(&folder, &["module", "out", "--policy", "clflush-host"])
        .ends(2)
        .says(&["`sev_writeback_page`", "does not know the page's address"]);
    let sleeps = hook(
        "void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)\n{\n\tmutex_lock(&vcpu->kvm->m);\n\tmutex_unlock(&vcpu->kvm->m);\n}\n",
    );
    refused("sleeps.c", &sleeps, &["sleeps.c:4:2", "may sleep here, where interrupts are off"]);
    let ipi = hook("void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)\n{\n\twbinvd_on_all_cpus();\n}\n");
    refused("ipi.c", &ipi, &["two that do so wait for each other for ever"]);
    let early = hook("void sev_vcpu_load(struct kvm_vcpu *vcpu, int cpu)\n{\n\twbnoinvd();\n}\n");
    refused("early.c", &early, &["early.c:4:2", "writes back outside of a reclaim"]);
    let entry = hook("void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)\n{\n\twbinvd();\n}\n");
    refused("entry.c", &entry, &["writes back outside of a reclaim"]);
    let life = hook("int sev_alloc_tracking(struct kvm *kvm)\n{\n\twbinvd_on_all_cpus();\n\treturn 0;\n}\n");
    refused("life.c", &life, &["writes back outside of a reclaim"]);
    let unwaited = hook(
        "static void f(void *info)\n{\n\twbinvd();\n}\nvoid sev_writeback_caches(struct kvm *kvm)\n{\n\ton_each_cpu_mask(kvm->c, f, NULL, false);\n}\n",
    );
    refused("unwaited.c", &unwaited, &["a call that is not waited for"]);
    let invd = hook("void sev_writeback_caches(struct kvm *kvm)\n{\n\tinvd();\n}\n");
    refused("invd.c", &invd, &["invd.c:4:2", "throws away what is dirty"]);
    let any =
        hook("void sev_writeback_caches(struct kvm *kvm)\n{\n\tif (maybe())\n\t\twbinvd_on_all_cpus();\n}\n");
    refused("any.c", &any, &["a choice of any way belongs to the model"]);
    // What would stand still for ever in a kernel.
    let lock = |body: &str| format!("DEFINE_SPINLOCK(s);\nDEFINE_MUTEX(m);\nDEFINE_PER_CPU(int, n);\n{body}");
    let flusher = |body: &str| {
        lock(&format!("void sev_writeback_caches(struct kvm *kvm)\n{{\n\tunsigned long f;\n\n{body}}}\n"))
    };
    let off = flusher("\tlocal_irq_save(f);\n\twbinvd_on_all_cpus();\n\tlocal_irq_restore(f);\n");
    refused("off.c", &off, &["it waits for other pCPUs here, where interrupts are off"]);
    let stays = flusher("\twbinvd_on_all_cpus();\n\tlocal_irq_disable();\n");
    refused("stays.c", &stays, &["it returns with interrupts off"]);
    let kept = flusher("\tspin_lock(&s);\n");
    refused("kept.c", &kept, &["it returns with a spinlock held"]);
    let on = lock(
        "void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)\n{\n\tlocal_irq_disable();\n\tlocal_irq_enable();\n}\n",
    );
    refused("on.c", &on, &["on.c:7:2", "it switches interrupts on"]);
    let under = flusher("\tspin_lock(&s);\n\tmutex_lock(&m);\n\tmutex_unlock(&m);\n\tspin_unlock(&s);\n");
    refused("under.c", &under, &["under.c:9:2", "it may sleep here, where a spinlock is held"]);
    let handler = "static void h(void *info)\n{\n\tspin_lock(&s);\n\twbinvd();\n\tspin_unlock(&s);\n}\n";
    let flushes = |body: &str| {
        lock(&format!(
            "{handler}void sev_writeback_caches(struct kvm *kvm)\n{{\n\tunsigned long f;\n\n{body}}}\n"
        ))
    };
    let held = flushes("\tspin_lock(&s);\n\ton_each_cpu(h, NULL, true);\n\tspin_unlock(&s);\n");
    refused("held.c", &held, &["it waits for other pCPUs here, where a spinlock is held"]);
    let before = flushes("\tspin_lock(&s);\n\tspin_unlock(&s);\n\ton_each_cpu(h, NULL, true);\n");
    refused("before.c", &before, &["before.c:14:2", "must be taken with interrupts off"]);
    // What is right goes in: flags that say what they found, a lock that is tried, a handler's own.
    let tried = "\tif (spin_trylock(&s))\n\t\tspin_unlock(&s);\n\twbinvd_on_all_cpus();\n";
    folder.file("tried.c", flusher(tried));
    sevsim_in(&folder, &["module", "tried", "--policy", "./tried.c"]).ends(0);
    let held = flusher("\tif (spin_trylock(&s)) {\n\t\twbinvd_on_all_cpus();\n\t\tspin_unlock(&s);\n\t}\n");
    refused("tries.c", &held, &["it waits for other pCPUs here, where a spinlock is held"]);
    let right = "\tspin_lock_irqsave(&s, f);\n\tspin_unlock_irqrestore(&s, f);\n\
                 \tmutex_lock(&m);\n\tpreempt_disable();\n\ton_each_cpu(h, NULL, true);\n\tpreempt_enable();\n\tmutex_unlock(&m);\n";
    let entry = "void pre_sev_run(struct kvm_vcpu *vcpu, int cpu)\n{\n\tunsigned long f;\n\n\tlocal_irq_save(f);\n\
                 \tthis_cpu_write(n, 1);\n\tlocal_irq_restore(f);\n\tspin_lock_irqsave(&s, f);\n\tspin_unlock_irqrestore(&s, f);\n}\n";
    folder.file("right.c", flushes(right) + entry);
    sevsim_in(&folder, &["module", "right", "--policy", "./right.c"]).ends(0);
    let exit = hook("void sev_vcpu_exit(struct kvm_vcpu *vcpu, int cpu)\n{\n}\n");
    refused("exit.c", &exit, &["`sev_vcpu_exit`", "no kernel tells a module of a guest's exit"]);
}

#[test]
fn a_host_without_the_module_is_told_how_to_get_it() {
    if std::path::Path::new("/dev/sevsim_flush").exists() {
        return;
    }
    let said = ["sevsim module DIR", "--load-module"];
    sevsim(&["native", "--policy", "sticky-wbnoinvd", "--yes-flush-this-host"]).ends(6).says(&said);
    sevsim(&["native", "--policy", "nonsense"]).ends(2).says(&["there is no policy `nonsense`"]);
    let dry = sevsim(&["native", "--dry-run", "--load-module", "x.ko"]).ends(0);
    assert!(dry.out.contains("loads x.ko into the kernel, and unloads it at the end"), "{}", dry.out);
    assert!(!dry.out.contains("the module is not loaded"), "{}", dry.out);
    let dry = sevsim(&["native", "--dry-run"]).ends(0);
    assert!(dry.out.starts_with("needs the helper module, which it does not load by itself"), "{}", dry.out);
    assert!(
        dry.out.contains("HERE NOT: there is no /dev/sevsim_flush: the module is not loaded"),
        "{}",
        dry.out
    );
}
