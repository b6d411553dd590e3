//! Credentials, tokens and TLS settings: who gets which. Needs root and `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::fake::{Answer, Fake};
use common::registry::{Registry, tls_file};
use common::{Pack, Store, TestImage, chain, layer, simple, user};
use joey_image::{Credentials, Digest, PullErrorKind};

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_proven_for_present_images_too() {
    let registry = Registry::start_locked().await;
    let store = Store::new();
    let reference = registry.push("private", "v1", &simple("p")).await;
    for round in ["absent", "present"] {
        for wrong in [None, user("joe", "wrong"), user("eve", "s3cret")] {
            let error = store.try_pull(&reference, wrong).await.unwrap_err();
            assert_eq!(
                error.kind(),
                PullErrorKind::Denied,
                "{round}: {}",
                chain(&error)
            );
            assert!(!chain(&error).contains("s3cret"));
        }
        let pulled = store
            .try_pull(&reference, user("joe", "s3cret"))
            .await
            .unwrap();
        assert_eq!(pulled.repo_tags, [reference.as_str()]);
    }
    let mut elsewhere = user("joe", "s3cret").unwrap();
    elsewhere.server_address = "https://other.example".into();
    let error = store
        .try_pull(&reference, Some(elsewhere))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Denied);
    let mut encoded = joey_image::Credentials {
        auth: "am9lOnMzY3JldA==".into(),
        server_address: format!("http://{}", registry.address),
        ..Default::default()
    };
    store
        .try_pull(&reference, Some(encoded.clone()))
        .await
        .unwrap();
    encoded.auth = "%%%".into();
    let error = store.try_pull(&reference, Some(encoded)).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::InvalidRequest);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_follows_the_hosts_file() {
    let registry = Registry::start_tls().await;
    let store = Store::new();
    let reference = registry.push("tls", "1", &simple("tls")).await;
    let server = format!("server = 'https://{}'\n", registry.address);
    let folder = format!("{}_", registry.address.replace(':', "_"));
    let at = |name| tls_file(name).display().to_string();
    let client = format!(
        "client = [['{}', '{}']]\n",
        at("client.pem"),
        at("client.key")
    );
    let ca = format!("ca = '{}'\n", at("ca.pem"));
    for (options, works) in [
        (String::new(), false),
        (ca.clone(), false),
        (client.clone(), false),
        (format!("{client}skip_verify = true\n"), true),
        (format!("{client}{ca}"), true),
    ] {
        store.write_hosts(&folder, &format!("{server}{options}"));
        let pulled = store.try_pull(&reference, None).await;
        match pulled {
            Ok(_) => assert!(works, "{options}"),
            Err(error) => assert!(!works, "{options}: {}", chain(&error)),
        }
    }
    store.write_hosts(&folder, &format!("{server}ca = '/nonexistent.pem'\n"));
    let error = store.try_pull(&reference, None).await.unwrap_err();
    assert!(
        chain(&error).contains("/nonexistent.pem"),
        "{}",
        chain(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_used_and_renewed() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = simple("s");
    let name = fake.push("team/app", "1", &image);
    let address = fake.address.clone();
    let issued = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&issued);
    fake.hook(move |request| {
        let authorization = request.header("authorization");
        if request.path.starts_with("/token") {
            let allowed = authorization == "Basic am9lOnMzY3JldA=="
                || request.body.contains("refresh_token=id-t0ken");
            if !allowed {
                return Some(Answer::status(401));
            }
            let number = counter.fetch_add(1, Ordering::Relaxed);
            return Some(Answer::status(200).body(format!("{{\"token\":\"t{number}\"}}")));
        }
        // A token is good for the manifest only; the blob wants a newer one.
        let fresh = match authorization.strip_prefix("Bearer ") {
            Some("direct") => true,
            Some("t0") => !request.path.contains("/blobs/"),
            Some(_) => true,
            None => false,
        };
        (!fresh).then(|| {
            Answer::status(401).with(
                "www-authenticate",
                format!("Bearer realm=\"http://{address}/token\",service=\"svc\""),
            )
        })
    });
    let error = store
        .try_pull(&name, user("joe", "wrong"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Denied, "{}", chain(&error));
    store.try_pull(&name, user("joe", "s3cret")).await.unwrap();
    assert_eq!(issued.load(Ordering::Relaxed), 2);
    let asked = fake.seen("GET", "/token");
    assert!(asked.last().unwrap().path.contains("service=svc"));
    assert!(
        asked
            .last()
            .unwrap()
            .path
            .contains("scope=repository%3Ateam%2Fapp%3Apull")
    );
    let identity = Credentials {
        identity_token: "id-t0ken".into(),
        ..Credentials::default()
    };
    store.try_pull(&name, Some(identity)).await.unwrap();
    let posted = fake.seen("POST", "/token");
    assert!(posted[0].body.contains("grant_type=refresh_token"));
    let direct = |token: &str| {
        Some(Credentials {
            registry_token: token.into(),
            ..Credentials::default()
        })
    };
    store.try_pull(&name, direct("direct")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_carry_no_secrets_elsewhere() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    let store = Store::new();
    let image = simple("s");
    let name = fake.push("a", "1", &image);
    storage.push("a", "1", &image);
    store.write_hosts(
        &format!("{}_", fake.address.replace(':', "_")),
        &format!(
            "server = 'http://{}'\n[header]\nx-key = 'k'\n",
            fake.address
        ),
    );
    let elsewhere = storage.address.clone();
    fake.hook(move |request| {
        if request.header("authorization").is_empty() {
            return Some(Answer::status(401).with("www-authenticate", "Basic realm=\"x\""));
        }
        request.path.contains("/blobs/").then(|| {
            let location = format!("http://{elsewhere}{}?signature=abc", request.path);
            Answer::status(307).with("location", location)
        })
    });
    store.try_pull(&name, user("joe", "s3cret")).await.unwrap();
    assert_eq!(
        fake.seen("GET", "/manifests/1")
            .last()
            .unwrap()
            .header("x-key"),
        "k"
    );
    let redirected = storage.seen("GET", "/blobs/");
    assert_eq!(redirected.len(), 3, "two layers and the config");
    for request in redirected {
        assert_eq!(request.header("authorization"), "");
        assert_eq!(request.header("x-key"), "");
    }
}

/// What the operator said about one host is not said about those that it names.
#[tokio::test(flavor = "multi_thread")]
async fn tls_settings_of_a_host_do_not_reach_the_hosts_it_names() {
    let registry = Fake::start_tls().await;
    let (tokens, storage) = (Fake::start_tls().await, Fake::start_tls().await);
    let store = Store::new();
    let image = simple("s");
    let name = registry.push("a", "1", &image);
    storage.push("a", "1", &image);
    let (realm, elsewhere) = (tokens.address.clone(), storage.address.clone());
    registry.hook(move |request| {
        if request.header("authorization").is_empty() {
            let challenge = format!("Bearer realm=\"https://{realm}/token\"");
            return Some(Answer::status(401).with("www-authenticate", challenge));
        }
        request.path.contains("/blobs/").then(|| {
            let location = format!("https://{elsewhere}{}", request.path);
            Answer::status(307).with("location", location)
        })
    });
    tokens.hook(|_| Some(Answer::status(200).body("{\"token\":\"t\"}")));
    let configure = |fake: &Fake, options: &str| {
        store.write_hosts(
            &format!("{}_", fake.address.replace(':', "_")),
            &format!("server = 'https://{}'\n{options}", fake.address),
        );
    };
    let at = |name| tls_file(name).display().to_string();
    let client = format!(
        "client = [['{}', '{}']]\n",
        at("client.pem"),
        at("client.key")
    );
    let ca = format!("ca = '{}'\n", at("ca.pem"));
    let header = "[header]\nx-key = 'k'\n";

    // Verification is waived for the registry alone.
    configure(&registry, &format!("skip_verify = true\n{header}"));
    let pull = || store.try_pull(&name, user("joe", "s3cret"));
    let error = chain(&pull().await.unwrap_err());
    assert!(
        error.contains(&tokens.address) && error.contains("certificate"),
        "{error}"
    );
    configure(&tokens, "skip_verify = 'yes'\n");
    let error = chain(&pull().await.unwrap_err());
    assert!(error.contains("hosts.toml"), "{error}");
    configure(&tokens, "skip_verify = true\n");
    let error = chain(&pull().await.unwrap_err());
    assert!(
        error.contains(&storage.address) && error.contains("certificate"),
        "{error}"
    );

    // Its authority vouches for the others, too; its client certificate and headers stay with it.
    configure(&registry, &format!("{ca}{client}{header}"));
    configure(&tokens, "");
    pull().await.unwrap();
    let asked = registry.seen("GET", "/manifests/1");
    assert!(asked.last().unwrap().client_certificate);
    assert_eq!(asked.last().unwrap().header("x-key"), "k");
    for request in tokens
        .seen("GET", "")
        .iter()
        .chain(&storage.seen("GET", ""))
    {
        assert!(!request.client_certificate, "{}", request.path);
        assert_eq!(request.header("x-key"), "");
    }
    // What a host's own folder says holds for it.
    configure(&storage, &format!("{ca}{client}"));
    let other = TestImage::new(&[layer(Pack::Gzip, &[("other", b"o")])]);
    let name = registry.push("a", "2", &other);
    storage.push("a", "2", &other);
    store.try_pull(&name, user("joe", "s3cret")).await.unwrap();
    let fetched = storage.seen("GET", &Digest::of(&other.blobs[0]).to_string());
    assert_eq!(fetched.len(), 1);
    assert!(fetched[0].client_certificate);
}
