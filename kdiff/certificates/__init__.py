"""Certificates of samplers: what they claim, measured on exact models. docs/certificates.md
explains each figure."""

from kdiff.certificates.certificate import Certificate, Certified, certificate
from kdiff.certificates.certifying import certify
from kdiff.certificates.finding import Finding

__all__ = ["Certificate", "Certified", "Finding", "certificate", "certify"]
