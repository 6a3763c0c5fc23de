"""Training of derived networks: retraining (Appendix B) and transfer (Appendix F)."""
