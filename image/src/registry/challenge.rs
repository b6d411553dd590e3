//! `WWW-Authenticate` headers (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way to authenticate that the server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Scheme in lower case.
    pub scheme: String,
    /// Parameters; names in lower case.
    pub params: BTreeMap<String, String>,
}

/// All challenges of a response, in order.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c == ',' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let (Some(value), Some(challenge)) = (after.strip_prefix('='), found.last_mut()) {
            let (value, tail) = read_value(value);
            challenge.params.insert(word.to_ascii_lowercase(), value);
            rest = tail;
        } else if !word.is_empty() {
            found.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                params: BTreeMap::new(),
            });
            rest = after;
        } else {
            // A value without a name: nothing that can be understood follows.
            break;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// Reads a token or a quoted string; returns it with what follows.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text
            .find(|c: char| c == ',' || c.is_whitespace())
            .unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_keeps_its_scope_whole() {
        let parsed = parse(
            r#"Bearer realm="https://auth.io/token",service="r.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].scheme, "bearer");
        assert_eq!(parsed[0].params["realm"], "https://auth.io/token");
        assert_eq!(parsed[0].params["scope"], "repository:a/b:pull,push");
    }

    #[test]
    fn several_challenges_in_one_header_are_parted() {
        let parsed = parse(r#"Basic realm="a \"b\"", Bearer realm=x, error="y", Negotiate"#);
        let schemes: Vec<_> = parsed.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["basic", "bearer", "negotiate"]);
        assert_eq!(parsed[0].params["realm"], "a \"b\"");
        assert_eq!(parsed[1].params["error"], "y");
    }

    #[test]
    fn nonsense_ends_and_does_not_panic() {
        for text in [
            "",
            "=",
            "=x",
            "a=b",
            ",,,",
            "Bearer realm=\"",
            "Bearer =",
            "é=\"\\",
        ] {
            parse(text);
        }
    }
}
