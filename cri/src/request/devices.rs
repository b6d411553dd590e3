//! Devices of a container.

use joey_proto::cri;
use joey_runtime::model::Device;

use super::{no_nul, non_empty};
use crate::status::{Result, invalid};

pub(super) fn device(device: &cri::Device) -> Result<Device> {
    non_empty(&device.host_path, "devices.host_path")?;
    no_nul(device.host_path.as_bytes(), "devices.host_path")?;
    no_nul(device.container_path.as_bytes(), "devices.container_path")?;
    if let Some(other) = device.permissions.chars().find(|c| !"rwm".contains(*c)) {
        return Err(invalid(format!(
            "device {:?}: permission {other:?} is none of r, w and m",
            device.host_path
        )));
    }
    let or = |text: &str, default: &str| {
        if text.is_empty() {
            default.to_owned()
        } else {
            text.to_owned()
        }
    };
    Ok(Device {
        host_path: device.host_path.clone().into(),
        container_path: or(&device.container_path, &device.host_path).into(),
        permissions: or(&device.permissions, "rwm"),
    })
}

pub(super) fn cdi_device(device: &cri::CdiDevice) -> Result<String> {
    let named = device.name.split_once('=').is_some_and(|(kind, name)| {
        !name.is_empty()
            && kind
                .split_once('/')
                .is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty())
    });
    if !named {
        return Err(invalid(format!(
            "CDI_devices: {:?} is not of the form vendor/class=name",
            device.name
        )));
    }
    Ok(device.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_mapped_with_their_defaults() {
        let given = cri::Device {
            container_path: "/dev/b".into(),
            host_path: "/dev/a".into(),
            permissions: "rw".into(),
        };
        let mapped = device(&given).unwrap();
        assert_eq!(mapped.host_path.to_str(), Some("/dev/a"));
        assert_eq!(mapped.container_path.to_str(), Some("/dev/b"));
        assert_eq!(mapped.permissions, "rw");

        let bare = cri::Device {
            host_path: "/dev/a".into(),
            ..cri::Device::default()
        };
        let mapped = device(&bare).unwrap();
        assert_eq!(mapped.container_path.to_str(), Some("/dev/a"));
        assert_eq!(mapped.permissions, "rwm");
    }

    #[test]
    fn bad_devices_are_refused() {
        device(&cri::Device::default()).unwrap_err();
        let odd = cri::Device {
            host_path: "/dev/a".into(),
            permissions: "rx".into(),
            ..cri::Device::default()
        };
        device(&odd).unwrap_err();
    }

    #[test]
    fn cdi_names_are_fully_qualified() {
        let named = |name: &str| cdi_device(&cri::CdiDevice { name: name.into() });
        assert_eq!(named("vendor.com/gpu=0").unwrap(), "vendor.com/gpu=0");
        for bad in [
            "",
            "gpu",
            "vendor.com/gpu",
            "gpu=0",
            "vendor.com/gpu=",
            "/gpu=0",
        ] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
