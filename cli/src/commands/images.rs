//! `joey images`.

use joey_proto::api::{Image, ListImagesRequest};

use super::print;
use crate::args::Images;
use crate::client::Client;
use crate::error::CliError;
use crate::format::{bytes, short};
use crate::table::Table;

/// Digits of an id in the table.
const ID_DIGITS: usize = 12;
/// In place of a name or digest.
const NONE: &str = "<none>";

/// Lists images, one line for each of their names.
pub async fn run(client: &Client, args: &Images) -> Result<(), CliError> {
    let images = client
        .clone()
        .list_images(ListImagesRequest {})
        .await?
        .into_inner()
        .images;
    print(&render(&images, args))
}

fn render(images: &[Image], args: &Images) -> String {
    let id = |image: &Image| match args.no_trunc {
        true => image.id.clone(),
        false => short(&image.id, ID_DIGITS).to_owned(),
    };
    if args.quiet {
        return images
            .iter()
            .map(|image| format!("{}\n", id(image)))
            .collect();
    }
    let mut head = vec!["IMAGE ID", "IMAGE NAME"];
    head.extend(args.digest.then_some("DIGEST"));
    head.push("SIZE");
    let mut table = Table::new(&head);
    for image in images {
        for (name, digest) in names(image) {
            let mut row = vec![id(image), name];
            row.extend(args.digest.then_some(digest));
            row.push(bytes(image.size));
            table.row(row);
        }
    }
    table.to_string()
}

/// The image's tags; of an image without any its digest references; each with its digest.
fn names(image: &Image) -> Vec<(String, String)> {
    let digest_of = |tag: &str| {
        let colon = tag.rfind(':').filter(|colon| !tag[*colon..].contains('/'));
        let repository = colon.map_or(tag, |colon| &tag[..colon]);
        let digests = image
            .digests
            .iter()
            .filter_map(|reference| reference.split_once('@'));
        let mut own = digests.filter(|(name, _)| *name == repository);
        own.next().map_or(NONE, |(_, digest)| digest).to_owned()
    };
    if !image.tags.is_empty() {
        return image
            .tags
            .iter()
            .map(|tag| (tag.clone(), digest_of(tag)))
            .collect();
    }
    if image.digests.is_empty() {
        return vec![(NONE.into(), NONE.into())];
    }
    let split = |reference: &String| match reference.split_once('@') {
        Some((_, digest)) => (reference.clone(), digest.to_owned()),
        None => (reference.clone(), NONE.to_owned()),
    };
    image.digests.iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_line_with_its_digest() {
        let image = Image {
            id: "sha256:0123456789abcdef".into(),
            tags: vec!["h:5000/a:1".into(), "b:2".into()],
            digests: vec!["h:5000/a@sha256:d1".into()],
            size: 4_290_000,
            created_at: 0,
        };
        let args = Images {
            quiet: false,
            digest: true,
            no_trunc: false,
        };
        assert_eq!(
            render(&[image], &args),
            "IMAGE ID       IMAGE NAME   DIGEST      SIZE\n\
             0123456789ab   h:5000/a:1   sha256:d1   4.2 MB\n\
             0123456789ab   b:2          <none>      4.2 MB\n"
        );
    }

    #[test]
    fn an_image_without_tags_is_named_by_digest() {
        let image = Image {
            digests: vec!["a@sha256:d".into()],
            ..Image::default()
        };
        assert_eq!(names(&image), [("a@sha256:d".into(), "sha256:d".into())]);
        assert_eq!(names(&Image::default()), [(NONE.into(), NONE.into())]);
    }
}
