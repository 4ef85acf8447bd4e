"""What runs from time to time, in whichever process claims it first."""
