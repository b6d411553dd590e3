use super::*;

fn descriptor(media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: Digest::of(b"x"),
        size: 1,
        platform: None,
    }
}

fn json(document: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(document).unwrap()
}

#[test]
fn layer_types_of_both_families_are_known() {
    for media_type in [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.example.model.v1.tar+gzip",
    ] {
        assert!(descriptor(media_type).check_layer().is_ok(), "{media_type}");
    }
    assert!(matches!(
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip").check_layer(),
        Err(ManifestError::ForeignLayer(_))
    ));
    assert!(matches!(
        descriptor("application/vnd.in-toto+json").check_layer(),
        Err(ManifestError::LayerType { .. })
    ));
}

#[test]
fn schema_1_and_ambiguous_documents_are_refused() {
    let schema1 = json(&serde_json::json!({"schemaVersion": 1, "name": "a"}));
    assert!(matches!(parse(&schema1, ""), Err(ManifestError::Schema1)));
    let entry = serde_json::json!({
        "mediaType": OCI_CONFIG, "digest": Digest::of(b"c").to_string(), "size": 1});
    let both = json(&serde_json::json!({
        "schemaVersion": 2, "manifests": [], "config": entry, "layers": []}));
    assert!(matches!(
        parse(&both, OCI_MANIFEST),
        Err(ManifestError::Ambiguous)
    ));
    let disguised = json(&serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "config": entry, "layers": []}));
    assert!(matches!(
        parse(&disguised, OCI_MANIFEST),
        Err(ManifestError::Ambiguous)
    ));
}

#[test]
fn an_index_gives_this_machines_manifest() {
    let entry = |arch: &str, os: &str, seed: &str| {
        serde_json::json!({
            "mediaType": OCI_MANIFEST, "digest": Digest::of(seed.as_bytes()).to_string(), "size": 9,
            "platform": {"architecture": arch, "os": os}})
    };
    let index = json(&serde_json::json!({"schemaVersion": 2, "manifests": [
        entry("unknown", "unknown", "attestation"),
        entry("s390x", "linux", "other"),
        entry(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "linux", "mine"),
        {"mediaType": OCI_MANIFEST, "digest": "sha512:00", "size": 1},
    ]}));
    let Document::Index(entries) = parse(&index, OCI_INDEX).unwrap() else {
        panic!("an index");
    };
    assert_eq!(entries.len(), 3);
    let host = HostPlatform::detect();
    assert_eq!(select(&entries, &host).unwrap().digest, Digest::of(b"mine"));
    let error = select(&entries[..2], &host).unwrap_err().to_string();
    assert!(error.contains("linux/s390x"), "{error}");
}

#[test]
fn configs_with_nulls_are_read() {
    let config = json(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
        "config": {"Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": null, "Labels": null,
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "User": "1000:1000"},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"l").to_string()]}}));
    let parsed = ImageConfigFile::parse(&config).unwrap();
    assert_eq!(parsed.container.env, ["A=b"]);
    assert_eq!(parsed.container.user, "1000:1000");
    assert!(parsed.container.exposed_ports.contains("80/tcp"));
    assert!(parsed.container.volumes.contains("/data"));
    assert_eq!(parsed.diff_ids, [Digest::of(b"l")]);
    assert!(matches!(
        parsed.check(2, &HostPlatform::detect()),
        Err(ManifestError::LayerCount { .. })
    ));
    ImageConfigFile::parse(b"{\"config\": null, \"rootfs\": null}").unwrap();
}

#[test]
fn chain_ids_follow_the_specification() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let chain = chain_ids(&[a, b]);
    assert_eq!(chain[0], a);
    assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
}

#[test]
fn indexes_of_millions_of_entries_cost_little() {
    let mut index = br#"{"schemaVersion": 2, "manifests": ["#.to_vec();
    let entry = br#"{"a":[{}]},"#;
    while index.len() + entry.len() < usize::try_from(MAX_MANIFEST).unwrap() {
        index.extend_from_slice(entry);
    }
    index.pop();
    index.extend_from_slice(b"]}");
    let Document::Index(entries) = parse(&index, OCI_INDEX).unwrap() else {
        panic!("an index");
    };
    assert_eq!(entries.capacity(), 0);
}

#[test]
fn what_a_config_keeps_in_memory_is_bounded() {
    let count = usize::try_from(MAX_SETTINGS / TEXT_COST).unwrap() + 1;
    for key in ["Env", "Cmd"] {
        let config = json(&serde_json::json!({"config": {key: vec![""; count]}}));
        let error = ImageConfigFile::parse(&config).unwrap_err();
        assert!(matches!(error, ManifestError::TooLarge { .. }), "{error}");
    }
    for key in ["Labels", "Volumes"] {
        let value = |key: &str| match key {
            "Labels" => serde_json::json!(""),
            _ => serde_json::json!({}),
        };
        let map: serde_json::Map<_, _> = (0..count).map(|n| (n.to_string(), value(key))).collect();
        let config = json(&serde_json::json!({"config": {key: map}}));
        let error = ImageConfigFile::parse(&config).unwrap_err();
        assert!(matches!(error, ManifestError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn errors_are_short_whatever_a_document_says() {
    let long = "x".repeat(1 << 20);
    let platform = serde_json::json!({"os": long, "architecture": long});
    let entry = serde_json::json!({"mediaType": OCI_MANIFEST, "platform": platform,
        "digest": Digest::of(b"m").to_string(), "size": 9});
    let index = json(&serde_json::json!({"schemaVersion": 2, "manifests": [entry]}));
    let Document::Index(entries) = parse(&index, OCI_INDEX).unwrap() else {
        panic!("an index");
    };
    let layer = serde_json::json!({"mediaType": long, "digest": Digest::of(b"l").to_string(),
        "size": 9});
    let layers = json(&serde_json::json!({"schemaVersion": 2, "layers": [layer],
        "config": {"digest": Digest::of(b"c").to_string(), "size": 9}}));
    let bad_digest = json(&serde_json::json!({"schemaVersion": 2, "layers": [],
        "config": {"digest": format!("sha256:{long}"), "size": 9}}));
    let media_type = json(&serde_json::json!({"schemaVersion": 2, "mediaType": long}));
    for error in [
        select(&entries, &HostPlatform::detect()).unwrap_err(),
        parse(&layers, "").unwrap_err(),
        parse(&bad_digest, "").unwrap_err(),
        parse(&media_type, "").unwrap_err(),
    ] {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text += &source.to_string();
        }
        assert!(text.len() < 1000, "{} bytes", text.len());
    }
}
