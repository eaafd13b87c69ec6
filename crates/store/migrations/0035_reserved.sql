-- Reserved: the number belongs to the migration of the secrets that servers share.
SELECT 1;
