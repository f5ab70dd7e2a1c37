//! Plain tables: columns aligned by spaces, plain ASCII so that they survive a mail; too wide a table is cut into
//! several, each with the first column.

use owo_colors::{OwoColorize as _, Style};

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), style: Style::new() }
    }
}

/// A column's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Lines of the head, the last one beside the rows.
    pub(crate) lines: [&'static str; 2],
    /// Whether its cells are numbers.
    pub(crate) right: bool,
}

impl Head {
    /// Of a column of words.
    pub(crate) const fn left(first: &'static str, second: &'static str) -> Head {
        Head { lines: [first, second], right: false }
    }

    /// Of a column of numbers.
    pub(crate) const fn right(first: &'static str, second: &'static str) -> Head {
        Head { lines: [first, second], right: true }
    }
}

/// Spaces between two columns; one, if the table then fits and otherwise would not.
const GAP: usize = 2;

/// Columns that a text takes, colours not counted.
pub(crate) fn columns(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|piece| piece.chars().count()).sum()
}

/// `text` filled up with spaces.
pub(crate) fn pad(text: &str, width: usize, right: bool) -> String {
    let fill = " ".repeat(width.saturating_sub(columns(text)));
    if right { format!("{fill}{text}") } else { format!("{text}{fill}") }
}

/// Lays a table out for `width` columns of the terminal.
pub(crate) fn table(heads: &[Head], rows: &[Vec<Cell>], width: usize) -> String {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(c, head)| {
            let cells = rows.iter().filter_map(|r| r.get(c)).map(|cell| columns(&cell.text));
            cells.chain(head.lines.iter().map(|l| columns(l))).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let narrow = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
    let gap = if narrow <= width && narrow + widths.len() > width { 1 } else { GAP };
    let mut from = 1;
    loop {
        let mut used = widths.first().copied().unwrap_or(0);
        let mut shown = vec![0];
        while from < heads.len() && (shown.len() == 1 || used + gap + widths[from] <= width) {
            used += gap + widths[from];
            shown.push(from);
            from += 1;
        }
        section(heads, rows, (&widths, gap), &shown, &mut text);
        if from >= heads.len() {
            return text;
        }
        text.push('\n');
    }
}

fn section(
    heads: &[Head],
    rows: &[Vec<Cell>],
    widths: (&[usize], usize),
    shown: &[usize],
    text: &mut String,
) {
    let bold = Style::new().bold();
    for line in 0..2 {
        if shown.iter().any(|c| !heads[*c].lines[line].is_empty()) {
            let cells: Vec<_> = shown.iter().map(|c| (*c, heads[*c].lines[line], bold)).collect();
            push_line(heads, widths, &cells, text);
        }
    }
    for row in rows {
        let cells = shown.iter().filter_map(|c| row.get(*c).map(|cell| (*c, cell.text.as_str(), cell.style)));
        push_line(heads, widths, &cells.collect::<Vec<_>>(), text);
    }
}

fn push_line(
    heads: &[Head],
    (widths, gap): (&[usize], usize),
    cells: &[(usize, &str, Style)],
    text: &mut String,
) {
    let mut pending = 0;
    for (i, (column, cell, style)) in cells.iter().copied().enumerate() {
        let fill = widths[column].saturating_sub(columns(cell));
        pending += if i > 0 { gap } else { 0 };
        pending += if heads[column].right { fill } else { 0 };
        if !cell.is_empty() {
            text.push_str(&" ".repeat(pending));
            text.push_str(&styled(cell, style));
            pending = 0;
        }
        pending += if heads[column].right { 0 } else { fill };
    }
    text.push('\n');
}

/// A text in a style; plain text stays plain, without codes that change nothing.
pub(crate) fn styled(text: &str, style: Style) -> String {
    if style.is_plain() { text.to_owned() } else { text.style(style).to_string() }
}

/// Words in lines of at most `width` characters, all but the first indented by `indent`.
pub(crate) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let wide = columns(word);
        if used > 0 && used + 1 + wide > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            used = indent;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += wide;
    }
    lines
}

/// A command to type: lines of at most `width` characters where its options allow that, each but the last ending in a
/// backslash, each but the first indented by `indent`.
pub(crate) fn wrap_command(command: &str, width: usize, indent: usize) -> String {
    let mut options = command.split(" -");
    let mut lines = options.next().unwrap_or_default().to_owned();
    let mut used = columns(&lines);
    for option in options {
        // An option stays beside its value; a backslash needs two columns.
        if used + columns(option) + " - \\".len() > width {
            lines.push_str(&format!(" \\\n{}", " ".repeat(indent)));
            used = indent;
        } else {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(&format!("-{option}"));
        used += 1 + columns(option);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_on_in_the_next_line_after_a_backslash() {
        let command = "sevsim check a-b --policy c-d --part e -D F=-1 --stories all";
        assert_eq!(wrap_command(command, 100, 4), command);
        for width in 24..=command.len() {
            let lines = wrap_command(command, width, 4);
            assert!(lines.lines().all(|l| l.len() <= width), "{width}\n{lines}");
            assert_eq!(lines.replace(" \\\n    ", " "), command, "{width}");
        }
        assert_eq!(wrap_command("check --policy a", 10, 2), "check \\\n  --policy a");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let heads = [Head::left("", "name"), Head::right("flush", "calls"), Head::left("", "note")];
        let rows =
            vec![vec!["a".into(), "7".into(), "x".into()], vec!["longer".into(), "".into(), "y".into()]];
        let text = anstream::adapter::strip_str(&table(&heads, &rows, 80)).to_string();
        assert_eq!(text, "        flush\nname    calls  note\na           7  x\nlonger         y\n");
    }

    #[test]
    fn a_wide_table_is_cut_and_each_piece_names_its_rows() {
        let heads = [Head::left("", "p"), Head::right("", "aaaa"), Head::right("", "bbbb")];
        let rows = vec![vec!["x".into(), "1".into(), "2".into()]];
        let text = anstream::adapter::strip_str(&table(&heads, &rows, 8)).to_string();
        assert_eq!(text, "p  aaaa\nx     1\n\np  bbbb\nx     2\n");
    }

    #[test]
    fn columns_move_together_before_a_table_is_cut() {
        let heads = [Head::left("", "p"), Head::right("", "aaaa"), Head::right("", "bbbb")];
        let rows = vec![vec!["x".into(), "1".into(), "2".into()]];
        let text = anstream::adapter::strip_str(&table(&heads, &rows, 11)).to_string();
        assert_eq!(text, "p aaaa bbbb\nx    1    2\n");
    }

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrap("aa bb cc", 5, 2), "aa bb\n  cc");
        assert_eq!(wrap("", 5, 2), "");
    }
}
