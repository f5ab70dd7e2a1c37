//! A relation as a Promela model for SPIN.

use cache_model::event::EventKind;

use super::{ActorTree, Part, Relation, names};

/// The model's text; `head` is what it is, line by line.
#[must_use]
pub fn text(relation: &Relation, head: &str) -> String {
    let mut out = String::from("/*\n");
    for line in head.lines() {
        out.push_str(format!(" * {}", line.replace("*/", "* /")).trim_end());
        out.push('\n');
    }
    out.push_str(" */\n\n");
    let names = names(relation);
    for (variable, name) in relation.variables.iter().zip(&names) {
        let from = if variable.low == 0 { String::new() } else { format!(", 0 is {}", variable.low) };
        let bits = 64 - variable.most.leading_zeros();
        let first = variable.first;
        let told = variable.name.replace("*/", "* /");
        out.push_str(&format!("unsigned {name} : {bits} = {first}; /* {told}{from} */\n"));
    }
    // Not part of a state: what an assertion that fails is called.
    out.push_str("\nhidden byte met_before = 0;\nhidden byte no_deadlock = 0;\n");
    for event in relation.events.iter().filter(|e| **e != EventKind::Deadlock) {
        out.push_str(&format!("hidden byte no_{} = 0;\n", word(*event)));
    }
    out.push_str("#ifdef ALL_STATES\n#define event(no) skip\n#else\n#define event(no) assert(no)\n#endif\n");
    for (number, actor) in relation.actors.iter().enumerate() {
        process(&mut out, relation, &names, actor, number);
    }
    out.push_str(&deadlock(relation, &names));
    out
}

/// Who finds that nobody can go on though some task has not ended. What the open world still does then frees nobody.
fn deadlock(relation: &Relation, names: &[String]) -> String {
    let ended = match &relation.ended {
        Some(ended) => ended.iter().map(|v| format!(" && {} == 0", names[*v])).collect(),
        None => " && false".to_owned(),
    };
    format!(
        "\n#ifndef ALL_STATES\nactive proctype deadlock()\n{{\nend:\n\t(timeout && !(true{ended})) -> assert(no_deadlock)\n}}\n#endif\n"
    )
}

/// An actor as a process of one place.
fn process(out: &mut String, relation: &Relation, names: &[String], actor: &ActorTree, number: usize) {
    let most = |variable: usize| relation.variables[variable].most;
    out.push_str(&format!(
        "\n/* {} */\nactive proctype actor_{number}()\n{{\nend:\n\tdo\n",
        actor.name.replace("*/", "* /")
    ));
    let mut each = |path: &[(usize, u64)], part: Part<'_>| {
        let mut guard: Vec<String> =
            path.iter().map(|(v, value)| format!("{} == {value}", names[*v])).collect();
        match part {
            Part::Unknown { variable, cases } => {
                guard.extend(cases.iter().map(|c| format!("{} != {}", names[variable], c.0)));
                out.push_str(&format!("\t:: d_step {{ {} -> assert(met_before) }}\n", guard.join(" && ")));
            }
            Part::Ways(ways) => {
                if guard.is_empty() {
                    guard.push("true".to_owned());
                }
                for way in ways {
                    let mut does: Vec<String> =
                        way.events.iter().map(|e| format!("event(no_{})", word(*e))).collect();
                    let writes = way.writes.iter().filter(|w| !path.contains(w));
                    does.extend(writes.map(|(v, value)| format!("{} = {value}", names[*v])));
                    if does.is_empty() {
                        does.push("skip".to_owned());
                    }
                    out.push_str(&format!(
                        "\t:: d_step {{ {} -> {} }}\n",
                        guard.join(" && "),
                        does.join("; ")
                    ));
                }
            }
        }
    };
    actor.tree.walk(&most, &mut Vec::new(), &mut each);
    out.push_str("\tod\n}\n");
}

/// An event as part of a name.
fn word(event: EventKind) -> String {
    event.name().replace('-', "_")
}
