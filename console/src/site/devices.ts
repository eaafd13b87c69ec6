// The devices that a configuration can be for: their names, what to do with the file, and the names in it that are the site's own.
export interface Own {
  /** As the file has it. */
  name: string;
  label: string;
}

export interface Device {
  format: string;
  title: string;
  group: string;
  extension: string;
  /** What to do, in this order. */
  steps: string[];
  /** Names in the file that the site replaces. */
  own?: Own[];
}

const FIREWALLS = 'Firewalls and routers';
const SOFTWARE = 'Software';
const OTHER = 'Cloud and programs';

export const DEVICES: Device[] = [
  {
    format: 'cisco-asa', title: 'Cisco ASA', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'outside', label: 'Outside interface' }, { name: 'inside', label: 'Inside interface' }, { name: 'outside_map', label: 'Crypto map' }],
    steps: ['Make sure that number 100 in the crypto map and the policies from 101 on are free.', 'Paste the file in configuration mode.'],
  },
  {
    format: 'cisco-ios', title: 'Cisco IOS XE', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'Tunnel100', label: 'Tunnel interface (a free one)' }],
    steps: ['Behind a NAT, put the router’s own outside address in the two lines that the file marks.', 'Paste the file in configuration mode.'],
  },
  {
    format: 'fortinet', title: 'FortiGate (FortiOS)', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'wan1', label: 'Outside interface' }, { name: 'internal', label: 'Inside interface' }],
    steps: ['Paste the file into the console, or run it as a script.'],
  },
  {
    format: 'juniper', title: 'Juniper SRX (Junos OS)', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'ge-0/0/0.0', label: 'Outside interface' }],
    steps: ['Replace st0.100 and st0 unit 100 if that unit is taken, and the zone vpn if yours has another name.', 'Run load set terminal in configuration mode, paste the file without its first lines, and commit.', 'Add a policy from the inside zone to vpn.'],
  },
  {
    format: 'mikrotik', title: 'MikroTik (RouterOS)', group: FIREWALLS, extension: 'rsc',
    steps: ['Paste the file into a terminal.', 'Move its rule of the chain srcnat in front of your rules that translate addresses.'],
  },
  {
    format: 'paloalto', title: 'Palo Alto Networks (PAN-OS)', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'ethernet1/1', label: 'Outside interface' }, { name: 'tunnel.100', label: 'Tunnel interface (a free one)' }],
    steps: ['Replace the zone vpn and the virtual router default if yours have other names.', 'Paste the file in configuration mode without its first lines, and commit.', 'Add a security policy from the inside zone to vpn.'],
  },
  {
    format: 'pfsense', title: 'pfSense', group: FIREWALLS, extension: 'xml',
    steps: ['Download a backup of the area IPsec.', 'Add the elements phase1 and phase2 of the file to it, under an ikeid and a reqid that are free. The file alone would replace every other tunnel.', 'Restore the backup, and apply the changes under VPN, IPsec.', 'Enable MSS clamping in the Advanced tab with the value in the file.'],
  },
  {
    format: 'vyos', title: 'VyOS', group: FIREWALLS, extension: 'txt',
    own: [{ name: 'eth0', label: 'Outside interface' }, { name: 'eth1', label: 'Inside interface' }],
    steps: ['Paste the file in configuration mode, commit, and save.'],
  },
  {
    format: 'strongswan', title: 'strongSwan (swanctl.conf)', group: SOFTWARE, extension: 'conf',
    steps: ['Put the file in /etc/swanctl/conf.d/, readable by root only.', 'Run swanctl --load-all.', 'If the host forwards for others, run the nft command in the file.'],
  },
  {
    format: 'libreswan', title: 'Libreswan (ipsec.conf)', group: SOFTWARE, extension: 'conf',
    steps: ['Put the file in /etc/ipsec.d/ with a name that ends in .conf.', 'Put its last line, without the #, in a file there that ends in .secrets. Both files have to be readable by root only.', 'Run ipsec auto --rereadsecrets, then ipsec restart.'],
  },
  {
    format: 'aws', title: 'AWS Site-to-Site VPN', group: OTHER, extension: 'sh',
    steps: ['Run the commands of aws ec2, one after the other, with the identifiers that AWS answers.', 'Send your provider one of the outside addresses that AWS assigns: the tunnel expects packets from it.'],
  },
  {
    format: 'json', title: 'Another device: all values as JSON', group: OTHER, extension: 'json',
    steps: ['Enter the values at your device: IKEv2, the pre-shared key, both identities, the proposals, the lifetimes and the networks.'],
  },
];

/** The devices of the formats, by group. A format that is not known here has its own name. */
export function grouped(formats: string[]): { group: string; devices: Device[] }[] {
  const known = DEVICES.filter((device) => formats.includes(device.format));
  const rest = formats.filter((format) => !DEVICES.some((device) => device.format === format));
  const all = [...known, ...rest.map((format) => ({ format, title: format, group: OTHER, extension: 'txt', steps: ['Load the file into your device.'] }))];
  return [FIREWALLS, SOFTWARE, OTHER].map((group) => ({ group, devices: all.filter((device) => device.group === group) })).filter(({ devices }) => devices.length > 0);
}

export const NAME = /^[A-Za-z0-9_./:-]{1,64}$/;
const COMMENT = /^\s*[#!]/;
const KEY = /psk|pre-?shared|secret/i;

/** The file with the site's own names. Comments and the line of the key stay as they are. */
export function withOwn(text: string, own: Own[], names: Record<string, string>): string {
  const chosen = own.map(({ name }) => [name, names[name]?.trim() ?? ''] as const).filter(([name, to]) => to !== name && NAME.test(to));
  if (chosen.length === 0) return text;
  // All at once, so that a name that was put in is not replaced again.
  const escaped = chosen.map(([name]) => name.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&'));
  const pattern = new RegExp(`(?<![\\w.-])(?:${escaped.join('|')})(?![\\w.-])`, 'g');
  const replaced = new Map(chosen);
  const line = (one: string) => (COMMENT.test(one) || KEY.test(one) ? one : one.replace(pattern, (name) => replaced.get(name) ?? name));
  return text.split('\n').map(line).join('\n');
}
