//! The few styles. Colour never carries meaning alone: a word or a mark says the same.

use owo_colors::Style;

/// Nothing broke.
pub(crate) fn good() -> Style {
    Style::new().green().bold()
}

/// Something broke.
pub(crate) fn bad() -> Style {
    Style::new().red().bold()
}

/// Not known.
pub(crate) fn unsure() -> Style {
    Style::new().yellow().bold()
}

/// Beside the matter.
pub(crate) fn aside() -> Style {
    Style::new().dimmed()
}

/// What stands out.
pub(crate) fn strong() -> Style {
    Style::new().bold()
}
