//! How many columns of a terminal a text takes.

/// The text's width: two for East Asian wide letters and emoji, none for marks that combine (Unicode Annex 11, in ranges
/// coarse enough for aligning a table).
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(letter_width).sum() }
}

fn letter_width(letter: char) -> usize {
    match letter {
        '\u{0300}'..='\u{036F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{20D0}'..='\u{20FF}'
        | '\u{3099}'..='\u{309A}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}' => 0,
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{303E}'
        | '\u{3041}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{FFE0}'..='\u{FFE6}'
        | '\u{1F300}'..='\u{1F64F}'
        | '\u{1F680}'..='\u{1F6FF}'
        | '\u{1F900}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{3FFFD}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::width;

    #[test]
    fn wide_letters_take_two_columns() {
        assert_eq!(width("abc"), 3);
        assert_eq!(width("ログイン失敗"), 12);
        assert_eq!(width("é"), 1);
        assert_eq!(width("e\u{0301}"), 1);
        assert_eq!(width("🔑 key"), 6);
    }
}
