//! `${VAR}` in the values of the pipeline file.

/// Where variables come from: the process environment, or a test's own map.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces every `${NAME}` by the variable's value; `$$` is a literal dollar sign.
///
/// The error is the rest of a sentence about the key that holds the text; it never repeats the text itself.
pub(super) fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after_dollar) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after_dollar;
        } else if let Some(body) = after.strip_prefix('{') {
            let (name, tail) = body.split_once('}').ok_or("has a ${ without its }")?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err("has a ${…} that is not the name of an environment variable".into());
            }
            let value = lookup(name)
                .ok_or_else(|| format!("needs the environment variable {name}, which is not set: export it"))?;
            expanded.push_str(&value);
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_home(text: &str) -> Result<String, String> {
        expand(text, &|name| (name == "HOME").then(|| "/home/${x}".to_owned()))
    }

    #[test]
    fn variables_are_filled_once_and_never_again() {
        assert_eq!(with_home("file://${HOME}/lake").unwrap(), "file:///home/${x}/lake");
        assert_eq!(with_home("a$$b$c").unwrap(), "a$b$c");
        assert_eq!(with_home("").unwrap(), "");
    }

    #[test]
    fn a_missing_variable_is_named() {
        assert!(with_home("${NOT_THERE}").unwrap_err().contains("NOT_THERE"));
        assert!(with_home("${").is_err());
        assert!(with_home("${a b}").is_err());
    }
}
