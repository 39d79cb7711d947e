//! Texts in CSV, so that a spreadsheet shows them instead of running them.

/// The text as a cell: what a spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection").
/// Numbers are not texts and must not go through here.
#[must_use]
pub fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn formulas_are_shown_and_every_text_can_be_told_again() {
        for text in
            ["=1+1", "+49 30 1234", "-2+3", "@SUM(1)", "\t=1", "\rx", "'quoted", "plain", "", "Иван \"Rack\", 3"]
        {
            let shown = cell(text);
            assert!(!shown.starts_with(['=', '+', '-', '@', '\t', '\r']), "{shown:?}");
            assert_eq!(shown.strip_prefix('\'').unwrap_or(&shown), text);
        }
    }
}
