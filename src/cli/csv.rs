//! Values of CSV files (RFC 4180).

use std::fmt::Display;

/// A number, or nothing where there is none.
pub(super) fn or_empty(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A text, in quotes if it has what divides values.
pub(super) fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_divides_values_is_in_quotes() {
        assert_eq!(quoted("a b"), "a b");
        assert_eq!(quoted("a\"b,c"), "\"a\"\"b,c\"");
        assert_eq!(quoted("a\nb"), "\"a\nb\"");
        assert_eq!(
            (or_empty(Some(0.5)), or_empty(None::<f64>)),
            ("0.5".into(), String::new())
        );
    }
}
