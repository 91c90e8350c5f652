//! Rows as lines of COPY's text format (PostgreSQL's manual, COPY, "Text Format").

use super::rows::{HookResult, Row, SecurityEvent};

impl SecurityEvent {
    /// Appends the row as one line.
    pub fn write_copy_line(&self, line: &mut Vec<u8>) {
        write_line(line, &self.values());
    }
}

impl HookResult {
    /// Appends the row as one line.
    pub fn write_copy_line(&self, line: &mut Vec<u8>) {
        write_line(line, &self.values());
    }
}

impl Row {
    /// Appends the row as one line.
    pub fn write_copy_line(&self, line: &mut Vec<u8>) {
        match self {
            Row::Event(event) => event.write_copy_line(line),
            Row::Hook(hook) => hook.write_copy_line(line),
        }
    }
}

fn write_line(line: &mut Vec<u8>, values: &[Option<&str>]) {
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            line.push(b'\t');
        }
        match value {
            None => line.extend_from_slice(b"\\N"),
            Some(text) => write_escaped(line, text.as_bytes()),
        }
    }
    line.push(b'\n');
}

fn write_escaped(line: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(position) = rest.iter().position(|byte| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')) {
        let (plain, special) = rest.split_at(position);
        line.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { return };
        let letter = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        };
        line.extend_from_slice(&[b'\\', letter]);
        rest = after;
    }
    line.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_the_empty_string_and_a_literal_backslash_n_differ() {
        let mut line = Vec::new();
        write_line(&mut line, &[None, Some(""), Some("\\N"), Some("a\tb\nc\rd\\")]);
        assert_eq!(line, b"\\N\t\t\\\\N\ta\\tb\\nc\\rd\\\\\n");
    }
}
