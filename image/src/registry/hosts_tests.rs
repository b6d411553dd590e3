use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn bases(dir: &tempfile::TempDir, registry: &str) -> Vec<String> {
    hosts_for(&[dir.path().to_owned()], registry)
        .unwrap()
        .iter()
        .map(|host| host.base.to_string())
        .collect()
}

#[test]
fn without_a_file_the_registry_itself_is_asked() {
    let dir = folder(&[]);
    assert_eq!(
        bases(&dir, "docker.io"),
        ["https://registry-1.docker.io/v2/"]
    );
    assert_eq!(bases(&dir, "r.io:5000"), ["https://r.io:5000/v2/"]);
    assert_eq!(bases(&dir, "localhost:5000"), ["http://localhost:5000/v2/"]);
    assert_eq!(bases(&dir, "127.0.0.1"), ["http://127.0.0.1/v2/"]);
    assert_eq!(bases(&dir, "[::1]:5000"), ["http://[::1]:5000/v2/"]);
}

#[test]
fn hosts_keep_the_order_of_the_file_and_the_server_comes_last() {
    let dir = folder(&[(
        "r.io/hosts.toml",
        r#"
        server = "https://up.r.io"
        skip_verify = true
        [host."https://z.example/mirror/"]
          capabilities = ["pull"]
          ca = ["a.pem", "/abs/b.pem"]
          client = [["c.pem", "k.pem"]]
          [host."https://z.example/mirror/".header]
            x-one = "1"
            x-two = ["2", "3"]
        [host."http://a.example:5000/v2/whole"]
          override_path = true
        "#,
    )]);
    assert_eq!(
        bases(&dir, "r.io"),
        [
            "https://z.example/mirror/v2/",
            "http://a.example:5000/v2/whole/",
            "https://up.r.io/v2/"
        ]
    );
    let hosts = hosts_for(&[dir.path().to_owned()], "r.io").unwrap();
    let mirror = &hosts[0];
    assert!(mirror.pull && !mirror.resolve);
    let own = dir.path().join("r.io");
    assert_eq!(mirror.tls.ca, [own.join("a.pem"), "/abs/b.pem".into()]);
    assert_eq!(
        mirror.tls.client,
        Some((own.join("c.pem"), Some(own.join("k.pem"))))
    );
    assert_eq!(mirror.headers.get_all("x-two").iter().count(), 2);
    assert!(hosts[1].resolve && !hosts[1].tls.skip_verify);
    assert!(hosts[2].tls.skip_verify);
}

#[test]
fn ports_and_the_default_folder_are_found() {
    let dir = folder(&[
        ("r.io_5000_/hosts.toml", "server = 'http://one'"),
        ("s.io:5000/hosts.toml", "server = 'http://two'"),
        (
            "_default/hosts.toml",
            "[host.'http://mirror']\ncapabilities=['pull','resolve']",
        ),
    ]);
    assert_eq!(bases(&dir, "r.io:5000"), ["http://one/v2/"]);
    assert_eq!(bases(&dir, "s.io:5000"), ["http://two/v2/"]);
    assert_eq!(
        bases(&dir, "t.io"),
        ["http://mirror/v2/", "https://t.io/v2/"]
    );
}

#[test]
fn dockers_folders_of_certificates_are_understood() {
    let dir = folder(&[
        ("r.io/ca.crt", ""),
        ("r.io/me.cert", ""),
        ("r.io/me.key", ""),
        ("r.io/lone.cert", ""),
    ]);
    let hosts = hosts_for(&[dir.path().to_owned()], "r.io").unwrap();
    let own = dir.path().join("r.io");
    assert_eq!(hosts[0].tls.ca, [own.join("ca.crt")]);
    assert_eq!(
        hosts[0].tls.client,
        Some((own.join("me.cert"), Some(own.join("me.key"))))
    );
}

#[test]
fn mistakes_are_named_with_their_file() {
    for text in [
        "server = ",
        "server = 'ftp://x'",
        "[host.'https://a']\ncapabilities = ['pul']",
        "[host.'https://a']\nskip_verify = 'yes'",
        "[host.'https://a'.header]\n'bad name' = 'x'",
    ] {
        let dir = folder(&[("r.io/hosts.toml", text)]);
        let error = hosts_for(&[dir.path().to_owned()], "r.io").unwrap_err();
        assert!(error.to_string().contains("hosts.toml"), "{text}: {error}");
    }
}
