//! A relation as a model for Murphi's checkers (Rumur).

use super::{ActorTree, Part, Relation, Tree, names};

/// The model's text; `head` is what it is, line by line.
#[must_use]
pub fn text(relation: &Relation, head: &str) -> String {
    let mut out = String::new();
    for line in head.lines() {
        comment(&mut out, line);
    }
    out.push_str("\nconst\n  events: 1; -- 0: an event is no error, so that every state is reached\n\nvar\n");
    let names = names(relation);
    for (variable, name) in relation.variables.iter().zip(&names) {
        let from = if variable.low == 0 { String::new() } else { format!(", 0 is {}", variable.low) };
        out.push_str(&format!("  {name}: 0..{}; -- {}{from}\n", variable.most, variable.name));
    }
    out.push_str("\nstartstate \"start\"\nbegin\n");
    for (variable, name) in relation.variables.iter().zip(&names) {
        out.push_str(&format!("  {name} := {};\n", variable.first));
    }
    out.push_str("end;\n");
    for (number, actor) in relation.actors.iter().enumerate() {
        rules(&mut out, relation, &names, actor);
        out.push_str(&format!(
            "\n-- {}: 0 in a state that was never met, 1 if it cannot step, 2 if it can\n",
            actor.name
        ));
        out.push_str(&format!("function can_{number}(): 0..2;\nbegin\n"));
        asks(&mut out, &names, &actor.tree, 1);
        out.push_str("  return 0;\nend;\n");
    }
    for (number, actor) in relation.actors.iter().enumerate() {
        out.push_str(&format!(
            "\ninvariant \"{}: met before\"\n  can_{number}() != 0;\n",
            plain(&actor.name)
        ));
    }
    let mut ways: Vec<String> = vec!["events = 0".to_owned()];
    if let Some(ended) = &relation.ended {
        let all: Vec<String> = ended.iter().map(|v| format!("{} = 0", names[*v])).collect();
        ways.push(if all.is_empty() { "true".to_owned() } else { format!("({})", all.join(" & ")) });
    }
    let steps = relation.actors.iter().enumerate().filter(|(_, a)| !a.world);
    ways.extend(steps.map(|(number, _)| format!("can_{number}() = 2")));
    out.push_str(&format!("\ninvariant \"deadlock\"\n  {};\n", ways.join("\n  | ")));
    out
}

/// A rule for each way to step.
fn rules(out: &mut String, relation: &Relation, names: &[String], actor: &ActorTree) {
    let most = |variable: usize| relation.variables[variable].most;
    let mut number = 0;
    let mut each = |path: &[(usize, u64)], part: Part<'_>| {
        let Part::Ways(ways) = part else { return };
        let guard: Vec<String> = path.iter().map(|(v, value)| format!("{} = {value}", names[*v])).collect();
        let guard = if guard.is_empty() { "true".to_owned() } else { guard.join(" & ") };
        for way in ways {
            number += 1;
            out.push_str(&format!("\nrule \"{} {number}\"\n  {guard}\n==>\nbegin\n", plain(&actor.name)));
            for event in &way.events {
                out.push_str(&format!("  if events = 1 then error \"{}\"; end;\n", event.name()));
            }
            for (variable, value) in way.writes.iter().filter(|w| !path.contains(w)) {
                out.push_str(&format!("  {} := {value};\n", names[*variable]));
            }
            out.push_str("end;\n");
        }
    };
    actor.tree.walk(&most, &mut Vec::new(), &mut each);
}

/// The tree as nested questions.
fn asks(out: &mut String, names: &[String], tree: &Tree, depth: usize) {
    let indent = "  ".repeat(depth);
    match tree {
        Tree::Do(ways) => out.push_str(&format!("{indent}return {};\n", if ways.is_empty() { 1 } else { 2 })),
        Tree::Ask { variable, cases } => {
            for (at, (value, tree)) in cases.iter().enumerate() {
                let word = if at == 0 { "if" } else { "elsif" };
                out.push_str(&format!("{indent}{word} {} = {value} then\n", names[*variable]));
                asks(out, names, tree, depth + 1);
            }
            out.push_str(&format!("{indent}end;\n"));
        }
    }
}

fn comment(out: &mut String, line: &str) {
    out.push_str(format!("-- {line}").trim_end());
    out.push('\n');
}

/// A name within a string.
fn plain(name: &str) -> String {
    name.replace('"', "'")
}
