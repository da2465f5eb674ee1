"""Tables as data, each with its source.

    thesis_table_5_1_auroc.csv   Versteeg 2022, table 5.1: AUROC in percent, and the side images were resized to
    thesis_table_5_2_time.csv    Versteeg 2022, table 5.2: best epoch, time per epoch and training time, h:mm:ss
    thesis_table_5_3_intra.csv   Pirnay and Chai 2021 as quoted in Versteeg 2022, table 5.3: AUROC in percent
    mvtec_ad_facts.csv           counted in MVTec AD (Bergmann et al. 2019): images, stored side in pixels, channels

The averages that the thesis prints below its tables are not among them: they are computed where they are needed.
"""
