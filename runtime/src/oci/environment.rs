//! A container's environment.

use crate::model::ContainerConfig;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image's environment (`KEY=value`) with the request's on top; a search path always.
pub(crate) fn environment(image: &[String], config: &ContainerConfig) -> Vec<(String, Vec<u8>)> {
    let mut environment: Vec<(String, Vec<u8>)> = Vec::new();
    let mut set =
        |key: &str, value: &[u8]| match environment.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value.to_vec(),
            None => environment.push((key.to_owned(), value.to_vec())),
        };
    set("PATH", DEFAULT_PATH.as_bytes());
    if config.tty {
        set("TERM", b"xterm");
    }
    for entry in image {
        let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(key, value.as_bytes());
    }
    for (key, value) in &config.env {
        set(key, value);
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_beats_the_image_and_values_are_bytes() {
        let config = ContainerConfig {
            env: vec![("A".into(), vec![0xff]), ("A".into(), b"last".to_vec())],
            ..ContainerConfig::default()
        };
        let set = environment(&["A=image".into(), "B=x=y".into(), "C".into()], &config);
        let value = |key: &str| {
            set.iter()
                .find(|(k, _)| k == key)
                .map(|(_, v)| v.as_slice())
        };
        assert_eq!(value("A"), Some(&b"last"[..]));
        assert_eq!(value("B"), Some(&b"x=y"[..]));
        assert_eq!(value("C"), Some(&b""[..]));
        assert_eq!(value("PATH"), Some(DEFAULT_PATH.as_bytes()));
        assert_eq!(value("TERM"), None);
    }
}
