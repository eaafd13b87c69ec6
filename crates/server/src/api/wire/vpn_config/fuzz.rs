//! What a fuzz target runs: the configurations of devices.

use super::{
    device_reader::{REFUSE_KEYS, config, taken_out},
    devices::DEVICES,
    *,
};
use wicketgate_model::PeerId;

/// Lines: a key, a name, an identity, and proposals. For each device, the configuration is refused, or the device reads exactly that
/// key, and the rest of the file is the same as with another key. No template fails.
pub fn device_config(text: &[u8]) {
    const KEY: &str = "Akey_of.letters0digits.and_nothing.else42";
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (Ok(key), Ok(name), Ok(id)) =
        (next().parse::<PreSharedKey>(), next().parse::<ResourceName>(), next().parse::<PeerId>())
    else {
        return;
    };
    let ike: Vec<_> = next().split(',').filter_map(|one| one.parse().ok()).collect();
    let esp: Vec<_> = next().split(',').filter_map(|one| one.parse().ok()).collect();
    let of = |key: &str| {
        let mut config = config(name.as_str(), id.as_str(), key);
        config.ike.proposals = IkeProposals::try_from(ike.clone()).unwrap_or_default();
        config.esp.proposals = EspProposals::try_from(esp.clone()).unwrap_or_default();
        config
    };
    for format in DEVICES.iter().map(|device| device.format) {
        let (Some(file), Some(other)) = (render(format, &of(key.expose())), render(format, &of(KEY))) else {
            unreachable!("{format} is a device's format");
        };
        for file in [&file, &other] {
            assert!(!matches!(file, Err(RenderError::Template(_))), "{format}: {file:?}");
        }
        // Other values are refused whatever the key is; that key is not.
        let (Ok(file), Ok(other)) = (&file, &other) else {
            assert!(other.is_err() || REFUSE_KEYS.contains(&format), "{format}: {file:?}");
            continue;
        };
        assert!(!file.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{format}: {file:?}");
        let ((lines, keys), (others, _)) = (taken_out(format, file), taken_out(format, other));
        assert_eq!(lines, others, "{format}");
        assert!(
            !keys.is_empty() && keys.iter().all(|read| read.as_deref() == Some(key.expose())),
            "{format}: {keys:?}"
        );
    }
}
