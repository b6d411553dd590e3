//! `ImageService`: each RPC goes to its own module.

use joey_proto::cri;
use joey_proto::cri::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use crate::chunks::Listing;
use crate::operation;
use crate::runtime_service::rpcs;
use crate::service::Service;

rpcs! {
    ImageService {
        list_images(ListImagesRequest) -> ListImagesResponse = list_images, "ListImages";
        image_status(ImageStatusRequest) -> ImageStatusResponse = image_status, "ImageStatus";
        pull_image(PullImageRequest) -> PullImageResponse = pull_image, "PullImage";
        remove_image(RemoveImageRequest) -> RemoveImageResponse = remove_image, "RemoveImage";
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse = image_fs_info, "ImageFsInfo";
    } streams {
        stream_images(StreamImagesRequest) -> StreamImagesStream(StreamImagesResponse)
            = list_images, "StreamImages";
    }
}
