//! Names of containers: what may be one, and one for those that have none.

const TRAITS: [&str; 48] = [
    "able", "agile", "alert", "amber", "bold", "brave", "breezy", "bright", "calm", "clever",
    "cosy", "curious", "dapper", "daring", "eager", "early", "fair", "fleet", "fond", "gentle",
    "glad", "golden", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively",
    "loyal", "lucky", "mellow", "merry", "modest", "neat", "nimble", "patient", "proud", "quick",
    "quiet", "rapid", "ready", "sunny", "tidy", "warm", "wise", "witty",
];
const ANIMALS: [&str; 48] = [
    "bandicoot",
    "bilby",
    "bittern",
    "brolga",
    "bronzewing",
    "budgerigar",
    "cassowary",
    "cockatoo",
    "corella",
    "currawong",
    "dingo",
    "dugong",
    "dunnart",
    "echidna",
    "emu",
    "falcon",
    "finch",
    "galah",
    "gecko",
    "goanna",
    "gouldian",
    "heron",
    "honeyeater",
    "ibis",
    "jabiru",
    "kangaroo",
    "koala",
    "kookaburra",
    "kowari",
    "lorikeet",
    "lyrebird",
    "magpie",
    "numbat",
    "osprey",
    "pademelon",
    "parrot",
    "pelican",
    "platypus",
    "possum",
    "potoroo",
    "quokka",
    "quoll",
    "rosella",
    "skink",
    "sugarglider",
    "taipan",
    "wallaby",
    "wombat",
];
/// The longest name; it is a host name too.
const MAX_LENGTH: usize = 63;
/// Tries before a number is added.
const PLAIN_TRIES: usize = 16;

/// Whether `name` may name a container.
#[must_use]
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() <= MAX_LENGTH
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// A name that `taken` does not know.
pub fn generate(taken: impl Fn(&str) -> bool) -> String {
    let plain = || format!("{}_{}", pick(&TRAITS), pick(&ANIMALS));
    for _ in 0..PLAIN_TRIES {
        let name = plain();
        if !taken(&name) {
            return name;
        }
    }
    loop {
        let name = format!("{}_{}", plain(), rand::random::<u32>());
        if !taken(&name) {
            return name;
        }
    }
}

fn pick(words: &[&'static str]) -> &'static str {
    words[rand::random_range(0..words.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid_and_free() {
        for _ in 0..100 {
            let name = generate(|_| false);
            assert!(is_valid(&name), "{name}");
        }
        let name = generate(|name| name.matches('_').count() < 2);
        assert!(is_valid(&name) && name.matches('_').count() == 2, "{name}");
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "web-1", "A.b_c"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "-a", "a b", "a/b", "é", &"a".repeat(64)] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
