"""How long certificates are valid, in days, and when `up` renews them.

Apart from `secrets`, because a program that only reads certificates needs no Pulumi.
"""

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
RENEW_DAYS = 60
"""`up` issues a certificate again when fewer days are left."""
