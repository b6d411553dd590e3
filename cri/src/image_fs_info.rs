//! ImageFsInfo.

use joey_proto::cri::{
    FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, UInt64Value,
};

use crate::operation::now;
use crate::service::Service;
use crate::status::Result;

/// Images and containers' layers are on one file system, under one folder.
#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    _request: ImageFsInfoRequest,
) -> Result<ImageFsInfoResponse> {
    let info = service.images.fs_info();
    let usage = FilesystemUsage {
        timestamp: now(),
        fs_id: Some(FilesystemIdentifier {
            mountpoint: info.mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(UInt64Value {
            value: info.used_bytes,
        }),
        inodes_used: Some(UInt64Value {
            value: info.inodes_used,
        }),
    };
    Ok(ImageFsInfoResponse {
        image_filesystems: vec![usage.clone()],
        container_filesystems: vec![usage],
    })
}
