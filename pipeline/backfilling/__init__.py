"""Past records through the stages of the live job."""
